"""plifctl runs import, report --figure and --html, serve."""

import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories import make_run

from plifctl.config.choices import FIGURES, OTHER_FIGURES, OTHER_TABLES, TABLES
from plifctl.report.figures import FIGURE_KINDS

Plifctl = Callable[..., Any]
NAME = "run-FashionMNIST_init_tau_{}_use_plif_True_use_max_pool_True_T_8_detach_reset_True-tag-test_accuracy.csv"


@pytest.fixture
def logs(places: Path) -> Path:
    folder = places / "logs"
    folder.mkdir()
    for tau, best in (("2.0", 0.9438), ("16.0", 0.9465)):
        rows = ["Wall time,Step,Value", *(f"{n},{n},{best - abs(n - 70) / 1000}" for n in range(100))]
        (folder / NAME.format(tau)).write_text("\n".join(rows) + "\n")
    return folder


class TestImport:
    def test_imported_runs_are_listed_shown_compared_verified_and_removed(
        self, plifctl: Plifctl, logs: Path, places: Path
    ) -> None:
        result = plifctl("runs", "import", logs, "--dry-run")
        assert result.code == 0
        assert "would be imported: 2 runs" in result.out
        assert not (places / "runs").exists()
        tree = json.loads(plifctl("runs", "import", logs, "--json").out)
        assert [entry["best_test"] for entry in tree["imported"]] == pytest.approx([0.9465, 0.9438])
        listed = json.loads(plifctl("runs", "--json").out)
        assert {entry["status"] for entry in listed} == {"imported"}
        assert len(json.loads(plifctl("runs", "ls", "--status", "imported", "--json").out)) == 2
        result = plifctl("runs", "show", "imported-fashion-mnist-plif")
        assert result.code == 0
        assert "94.38 % (epoch 71)" in result.out
        assert (
            json.loads(plifctl("runs", "show", "imported-fashion-mnist-plif-tau16", "--json").out)["best_epoch"] == 71
        )
        make_run(places / "runs", epochs=2)
        result = plifctl("runs", "compare", "imported-fashion-mnist-plif", "last")
        assert result.code == 0
        assert "imported" in result.out
        assert plifctl("runs", "verify", "imported-fashion-mnist-plif").out == "imported-fashion-mnist-plif: ok\n"
        damaged = places / "runs" / "imported-fashion-mnist-plif" / "imported.json"
        damaged.write_text(damaged.read_text().replace("0.94", "0.95", 1))
        result = plifctl("runs", "verify")
        assert result.code == 1
        assert "imported-fashion-mnist-plif: DAMAGED" in result.out
        assert "imported-fashion-mnist-plif-tau16: ok" in result.out
        assert plifctl("runs", "rm", "imported-fashion-mnist-plif-tau16", "--yes").code == 0
        listed = json.loads(plifctl("runs", "--json").out)
        assert {entry["status"] for entry in listed} == {"damaged", "finished"}

    def test_report_with_source_authors_has_the_authors_logs_only_and_imported_the_others(
        self, plifctl: Plifctl, logs: Path
    ) -> None:
        sources = ("authors", "imported")
        (before,) = json.loads(plifctl("report", "--table", "4", "--source", "authors", "--json").out)
        assert plifctl("runs", "import", logs).code == 0
        own = json.loads(plifctl("report", "--table", "4", "--json").out)[0]["entries"]
        assert all(entry.get("note", "").find("imported") < 0 for entry in own)
        authors, imported = (
            json.loads(plifctl("report", "--table", "4", "--source", source, "--json").out)[0] for source in sources
        )
        assert authors == before
        assert all(entry["result"] for entry in authors["entries"])
        numbers = [
            (entry["reported"], entry["result"], entry["runs"]) for entry in imported["entries"] if entry["result"]
        ]
        assert numbers == [
            (94.38, 94.38, ["imported-fashion-mnist-plif"]),
            (94.65, 94.65, ["imported-fashion-mnist-plif-tau16"]),
        ]
        assert {cell for row in imported["rows"] for cells in row[1:] for cell in cells if "@" in cell} == {
            "94.38 @100",
            "94.65 @100",
        }
        old = plifctl("report", "--table", "4", "--source", "published", "--json")
        assert json.loads(old.out) == [authors]
        assert old.err == "warning: old spelling: --source published is called --source authors now\n"

    def test_import_of_a_log_without_test_accuracy_says_that_its_best_is_of_validation(
        self, plifctl: Plifctl, places: Path
    ) -> None:
        (places / "logs").mkdir()
        rows = "Wall time,Step,Value\n1,0,0.5\n2,1,0.9643\n"
        (places / "logs/run-resnet-tag-validation_accuracy.csv").write_text(rows)
        (imported,) = [line for line in plifctl("runs", "import", "logs").out.splitlines() if "resnet" in line]
        (listed,) = [line for line in plifctl("runs").out.splitlines() if "resnet" in line]
        assert "96.43 val" in listed
        assert "96.43 val" in imported

    @pytest.mark.parametrize(
        ("arguments", "code", "text"),
        [
            (("nowhere",), 4, "no such folder"),
            (("logs", "--name", "mine"), 2, "found 2 runs"),
            (("logs", "--tag", "accuracy"), 2, "expected SERIES=TAG"),
            (("logs", "--tag", "test_accuracy=top1"), 2, "no scalar 'top1'"),
        ],
    )
    def test_import_with_a_wrong_argument_says_what_is_wrong(
        self, plifctl: Plifctl, logs: Path, places: Path, arguments: tuple[str, ...], code: int, text: str
    ) -> None:
        result = plifctl("runs", "import", *arguments)
        assert result.code == code
        assert text in result.err
        assert not (places / "runs").exists()


class TestFigures:
    @pytest.mark.slow
    def test_report_with_all_figures_draws_those_it_can(self, plifctl: Plifctl, places: Path) -> None:
        result = plifctl("report", "--figure", "all", "--out", places / "figures", "--json")
        assert result.code == 0
        assert [entry["figure"] for entry in json.loads(result.out)] == ["1b", "2", "5", "6", "7", "J"]
        assert "figure S2: skipped: no run has recorded spikes" in result.err
        for entry in json.loads(result.out):
            assert Path(entry["path"]).read_bytes().startswith(b"%PDF")
            assert entry["caption"].startswith(FIGURE_KINDS[entry["figure"]].caption)

    def test_report_with_a_named_run_draws_it_with_the_authors_curve(
        self, plifctl: Plifctl, logs: Path, places: Path
    ) -> None:
        assert plifctl("runs", "import", logs).code == 0
        run = make_run(places / "runs", epochs=2)
        imported = "imported-fashion-mnist-plif-tau16"
        result = plifctl("report", "--figure", "6", "--run", run.name, "--run", imported, "--out", "a.svg", "--json")
        assert result.code == 0
        assert json.loads(result.out)[0]["runs"] == ["authors-fashion-mnist-plif-tau16", run.name, imported]

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("--figure", "3"), "unknown figure '3'"),
            (("--figure", "1b", "--out", "a.bmp"), "unknown format of figures"),
            (("--figure", "1b", "--figure", "2", "--out", "a.pdf"), "several figures need a folder"),
            (("--figure", "6", "--run", "unknown"), "no run 'unknown'"),
            (("--figure", "7"), "no run has learnable time constants"),
            (("--figure", "1b", "--table", "4"), "exclude each other"),
            (("--figure", "6", "--experiment", "demo"), "figure 6 shows no experiment"),
            (("--table", "4", "--experiment", "demo"), "--experiment chooses what figure start shows"),
            (("--figure", "start", "--html", "page", "--experiment", "demo"), "--experiment chooses"),
            ((), "missing option"),
        ],
    )
    def test_report_with_wrong_options_says_what_is_wrong(
        self, plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], text: str
    ) -> None:
        monkeypatch.setattr("plifctl.paths.registry_dirs", lambda: [places])
        (places / "experiments").mkdir()
        result = plifctl("report", *arguments)
        assert result.code == 2
        assert text in result.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("report", "--context"), "hint: use --table context\n"),
        (("report", "--table", "4", "--format", "json"), "hint: use --json\n"),
        (("report", "--table", "optimism"), "hint: use --table selection\n"),
        (("report", "--table", "4", "--source", "ours"), "hint: use --source mine, or --source shipped\n"),
        (("report", "--table", "selection", "--epochs", "4"), "hint: leave out --epochs\n"),
        (("report", "--html", "page", "--epochs", "4"), "hint: leave out --epochs\n"),
        (("report", "--figure", "start", "--run", "last"), "hint: leave out --run\n"),
        (("report", "--figure", "fast", "--epochs", "4"), "hint: leave out --epochs\n"),
        (("report", "--figure", "6", "--channel", "4"), "hint: use --channel with --figure S2 to S5\n"),
        (("report", "--html", "page", "--figure", "6", "--run", "last"), "hint: leave out --run\n"),
        (("report", "--table", "4", "--run", "last"), "hint: leave out --run\n"),
        (("report", "--table", "4", "--channel", "4"), "hint: leave out --channel\n"),
        (("report", "--figure", "6", "--source", "added"), "hint: plifctl report --table 4 --source added\n"),
        (("ls", "runs"), "hint: use plifctl runs ls\n"),
    ],
)
def test_old_spelling_ends_with_exit_code_2_and_the_new_one(
    plifctl: Plifctl, arguments: tuple[str, ...], hint: str
) -> None:
    result = plifctl(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith(hint)


def test_completion_offers_the_figures_that_can_be_drawn() -> None:
    assert list(FIGURE_KINDS) == [*FIGURES, *OTHER_FIGURES]


def test_report_as_a_page_has_tables_and_every_run(plifctl: Plifctl, places: Path) -> None:
    run = make_run(places / "runs", epochs=2)
    (broken := make_run(places / "runs", "train.lr=0.5").path / "metrics.jsonl").write_text("{}\n")
    result = plifctl("report", "--html", places / "report", "--json")
    assert result.code == 0
    page = (places / "report" / "index.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    status = {entry["name"]: entry["status"] for entry in data["runs"]}
    assert status[run.name] == "finished"
    assert status[broken.parent.name].startswith("damaged: ")
    names = [table["name"] for table in data["tables"]]
    assert names == [*TABLES, *OTHER_TABLES]
    assert broken.exists()


@pytest.mark.subprocess
def test_serve_answers_until_it_is_stopped(places: Path) -> None:
    run = make_run(places / "runs", epochs=2)
    command = [sys.executable, "-m", "plifctl", "serve", "--port", "0"]
    process = subprocess.Popen(command, cwd=places, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().split()[0]
    with urllib.request.urlopen(url + "data.json", timeout=30) as reply:
        served = json.load(reply)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped by SIGINT" in err
    assert run.name in {entry["name"] for entry in served["runs"]}  # beside the authors' runs
