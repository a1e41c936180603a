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

from plifctl.report.figures import FIGURES

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
    def test_runs_of_other_code_among_ours(self, plifctl: Plifctl, logs: Path, places: Path) -> None:
        said = plifctl("runs", "import", logs, "--dry-run")
        assert said.code == 0
        assert "would be imported: 2 runs" in said.out
        assert not (places / "runs").exists()
        tree = json.loads(plifctl("runs", "import", logs, "--json").out)
        assert [entry["best_test"] for entry in tree["imported"]] == pytest.approx([0.9465, 0.9438])
        listed = json.loads(plifctl("runs", "--json").out)
        assert {entry["status"] for entry in listed} == {"imported"}
        assert len(json.loads(plifctl("runs", "ls", "--status", "imported", "--json").out)) == 2
        said = plifctl("runs", "show", "published-fashion-mnist-plif")
        assert said.code == 0
        assert "94.38 % (epoch 71)" in said.out
        assert (
            json.loads(plifctl("runs", "show", "published-fashion-mnist-plif-tau16", "--json").out)["best_epoch"] == 71
        )
        make_run(places / "runs", epochs=2)
        said = plifctl("runs", "compare", "published-fashion-mnist-plif", "last")
        assert said.code == 0
        assert "imported" in said.out
        assert plifctl("runs", "verify", "published-fashion-mnist-plif").out == "published-fashion-mnist-plif: ok\n"
        damaged = places / "runs" / "published-fashion-mnist-plif" / "imported.json"
        damaged.write_text(damaged.read_text().replace("0.94", "0.95", 1))
        said = plifctl("runs", "verify")
        assert said.code == 1
        assert "published-fashion-mnist-plif: DAMAGED" in said.out
        assert "published-fashion-mnist-plif-tau16: ok" in said.out
        assert plifctl("runs", "rm", "published-fashion-mnist-plif-tau16", "--yes").code == 0
        assert len(json.loads(plifctl("runs", "--json").out)) == 1  # the damaged one is warned of

    def test_tables_from_logs(self, plifctl: Plifctl, logs: Path) -> None:
        assert plifctl("runs", "import", logs).code == 0
        own = json.loads(plifctl("report", "--table", "4", "--json").out)[0]["entries"]
        assert all(entry.get("note", "").find("imported") < 0 for entry in own)
        (table,) = json.loads(plifctl("report", "--table", "4", "--source", "published", "--json").out)
        filled = [entry for entry in table["entries"] if entry["ours"]]
        numbers = [(entry["published"], entry["ours"], entry["difference"]) for entry in filled]
        assert numbers == [(94.38, 94.38, 0.0), (94.65, 94.65, 0.0)]

    @pytest.mark.parametrize(
        ("arguments", "code", "text"),
        [
            (("nowhere",), 4, "no such folder"),
            (("logs", "--name", "mine"), 2, "there are 2 runs"),
            (("logs", "--tag", "accuracy"), 2, "expected SERIES=TAG"),
            (("logs", "--tag", "test_accuracy=top1"), 2, "no scalar 'top1'"),
        ],
    )
    def test_what_is_wrong(
        self, plifctl: Plifctl, logs: Path, places: Path, arguments: tuple[str, ...], code: int, text: str
    ) -> None:
        said = plifctl("runs", "import", *arguments)
        assert said.code == code
        assert text in said.err
        assert not (places / "runs").exists()


class TestFigures:
    def test_all_that_can_be_drawn(self, plifctl: Plifctl, logs: Path, places: Path) -> None:
        assert plifctl("runs", "import", logs).code == 0
        said = plifctl("report", "--figure", "all", "--out", places / "figures", "--json")
        assert said.code == 0
        assert [entry["figure"] for entry in json.loads(said.out)] == ["1b", "2", "6", "J"]
        assert "figure S2: no run has recorded spikes; left out" in said.err
        for entry in json.loads(said.out):
            assert Path(entry["path"]).read_bytes().startswith(b"%PDF")
            assert entry["caption"] == FIGURES[entry["figure"]].caption

    def test_ours_beside_the_published(self, plifctl: Plifctl, logs: Path, places: Path) -> None:
        assert plifctl("runs", "import", logs).code == 0
        run = make_run(places / "runs", epochs=2)
        published = "published-fashion-mnist-plif-tau16"
        said = plifctl("report", "--figure", "6", "--run", run.name, "--run", published, "--out", "a.svg", "--json")
        assert said.code == 0
        assert json.loads(said.out)[0]["runs"] == [published, run.name]

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("--figure", "3"), "unknown figure '3'"),
            (("--figure", "1b", "--out", "a.bmp"), "figures end in .png"),
            (("--figure", "1b", "--figure", "2", "--out", "a.pdf"), "several figures need a folder"),
            (("--figure", "6", "--run", "nobody"), "no run 'nobody'"),
            (("--figure", "7"), "time constants that were learnt"),
            (("--figure", "1b", "--table", "4"), "one at a time"),
            ((), "nothing to report"),
        ],
    )
    def test_what_is_wrong(
        self, plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], text: str
    ) -> None:
        monkeypatch.setattr("plifctl.paths.registry_dirs", lambda: [places])
        (places / "experiments").mkdir()
        said = plifctl("report", *arguments)
        assert said.code == 2
        assert text in said.err


def test_the_page(plifctl: Plifctl, places: Path) -> None:
    run = make_run(places / "runs", epochs=2)
    (broken := make_run(places / "runs", "train.lr=0.5").path / "metrics.jsonl").write_text("{}\n")
    said = plifctl("report", "--html", places / "report", "--json")
    assert said.code == 0
    page = (places / "report" / "index.html").read_text()
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    status = {entry["name"]: entry["status"] for entry in data["runs"]}
    assert status[run.name] == "finished"
    assert status[broken.parent.name].startswith("damaged: ")
    names = [table["name"] for table in data["tables"]]
    assert names == ["1", "2", "3", "4", "5", "S1", "S2", "optimism", "early", "context"]
    assert broken.exists()


def test_serve_until_it_is_stopped(places: Path) -> None:
    make_run(places / "runs", epochs=2)
    command = [sys.executable, "-m", "plifctl", "serve", "--port", "0"]
    process = subprocess.Popen(command, cwd=places, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().split()[0]
    with urllib.request.urlopen(url + "data.json", timeout=30) as reply:
        assert len(json.load(reply)["runs"]) >= 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "stopped by SIGINT" in err
