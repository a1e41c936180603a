"""What plifctl 0.1.0 left on a user's disk is used as it is: listed, evaluated, exported, reported, resumed.

``v0_1_0/`` holds a user's folder (registry folder, raw data, caches, runs, exports) and what 0.1.0 reported of it;
``make_artefacts.py`` made it. Each test works on a copy, and whatever is only read must have the same bytes afterwards.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from plifctl.runs import Run

Plifctl = Callable[..., Any]
HERE = Path(__file__).parent / "v0_1_0"
RUNS: dict[str, str] = json.loads((HERE / "names.json").read_text(encoding="utf-8"))
FINISHED = [name for kind, name in RUNS.items() if kind not in ("stopped", "killed")]
IMPORTED = ["published-fashion-mnist-plif", "resnet"]
EXPORTED = sorted(f"exports/{path.name}" for path in (HERE / "exports").glob("*.pt"))

_RENAMED = {"published": "authors"}
"""Values of then by what they are called now."""
_PASSING = ("age_seconds", "path", "seal", "seconds", "samples_per_second", "peak_rss_bytes", "peak_gpu_bytes")
"""Fields that tell of the moment or the machine."""
_NEW_FILES = (".lock", "names.json")
"""Files that reading may leave: locks, by which a run that is being trained is known."""


def expected(name: str) -> Any:
    """Returns what 0.1.0 reported."""
    return json.loads((HERE / "expected" / f"{name}.json").read_text(encoding="utf-8"))


def today(tree: Any) -> Any:
    """Returns a document in today's words, without what tells of the moment."""
    if isinstance(tree, dict):
        return {key: today(value) for key, value in tree.items() if key not in _PASSING}
    if isinstance(tree, list):
        return [today(part) for part in tree]
    return _RENAMED.get(tree, tree) if isinstance(tree, str) else tree


def reported(entry: dict[str, Any]) -> Any:
    """Returns the number that a table's author reports, of an entry of a report."""
    return entry["reported"] if "reported" in entry else entry["published"]


def shared(found: dict[str, Any], wanted: dict[str, Any], *fields: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns some fields of two documents, in today's words; of mappings in them, what 0.1.0 wrote."""
    first, second = today(found), today(wanted)

    def then(name: str) -> Any:
        value, before = first[name], second[name]
        both = isinstance(value, dict) and isinstance(before, dict)
        return {key: value[key] for key in value if key in before} if both else value

    return {name: then(name) for name in fields}, {name: second[name] for name in fields}


def rows_in(path: Path) -> list[dict[str, Any]]:
    """Returns the epochs in a ``metrics.jsonl``."""
    return [today(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def content_of(folder: Path) -> dict[str, str]:
    """Returns a sha256 of each file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def artefacts(places: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the user's folder, which is the current folder."""
    left_out = shutil.ignore_patterns("make_artefacts.py", "expected", "__pycache__")
    shutil.copytree(HERE, places, dirs_exist_ok=True, ignore=left_out)
    monkeypatch.setenv("PLIFCTL_REGISTRY", "mine")
    monkeypatch.setenv("PLIFCTL_DEVICE", "cpu")
    return places


@pytest.fixture
def untouched(artefacts: Path) -> Iterator[Path]:
    """The folder; whatever the test does, no file that was there may change, and none may come but in ``new/``."""
    before = content_of(artefacts)
    yield artefacts
    after = content_of(artefacts)
    assert {name: after.get(name) for name in before} == before
    came = [name for name in after if name not in before and not name.startswith("new/")]
    assert [name for name in came if Path(name).name not in _NEW_FILES] == []


@pytest.fixture
def document(plifctl: Plifctl) -> Callable[..., Any]:
    """Runs a command and returns the document that it prints.

    It may warn once, beside what raw data are warned of, and that a run is resumed by another version.
    """

    def run(*arguments: object) -> Any:
        found = plifctl(*arguments, "--json")
        assert found.code == 0, found.err
        warnings = [line for line in found.err.splitlines() if line.startswith("warning: ")]
        others = [line for line in warnings if "checksum" not in line and "under other conditions" not in line]
        assert len(others) <= 1, found.err
        return json.loads(found.out)

    return run


Document = Callable[..., Any]


class TestRegistryFolder:
    @pytest.mark.usefixtures("untouched")
    def test_check_accepts_the_words_of_0_1_0(self, plifctl: Plifctl) -> None:
        found = plifctl("check")
        assert found.code == 0, found.out
        assert len([line for line in found.err.splitlines() if line.startswith("warning: ")]) <= 1

    @pytest.mark.usefixtures("untouched")
    def test_ls_lists_the_users_experiments(self, document: Document) -> None:
        found = {entry["name"]: entry for entry in document("ls")}
        for wanted in expected("ls"):
            entry = found[wanted["name"]]
            assert (entry["T"], entry["title"]) == (wanted["T"], wanted["title"])
            assert (entry["A_%"], entry["B_%"]) == (wanted["A_%"], wanted["B_%"])

    @pytest.mark.usefixtures("untouched")
    @pytest.mark.parametrize("name", ["tiny-plif", "tiny-soft", "tiny-mnist-plif"])
    @pytest.mark.parametrize(("options", "file"), [((), "show"), (("--recipe", "published"), "show-published")])
    def test_show_resolves_to_the_same_experiment(
        self, document: Document, name: str, options: tuple[str, ...], file: str
    ) -> None:
        found, wanted = document("show", name, *options)["spec"], expected(file)[name]["spec"]
        sections = ("name", "title", "recipe", "T", "dataset", "frames", "network", "neuron", "validation", "digest")
        first, second = shared(found, wanted, *sections)
        assert first == second
        assert reported(found) == wanted["published"]
        train = today(found["train"])
        assert {key: train.get(key) for key in wanted["train"]} == today(wanted["train"])


class TestCaches:
    @pytest.mark.usefixtures("untouched")
    def test_cache_ls_lists_them_by_the_same_key(self, document: Document) -> None:
        found = {entry["name"]: entry for entry in document("cache", "ls")}
        wanted = {entry["name"]: entry for entry in expected("cache-ls")}
        assert set(found) == set(wanted)
        for name, entry in found.items():
            first, second = shared(entry, wanted[name], "shape", "bytes", "verified", "complete", "content_digest")
            assert first == second
            assert entry["key"]["raw"] == wanted[name]["key"]["raw"]

    @pytest.mark.usefixtures("untouched")
    def test_cache_verify_finds_nothing_wrong(self, document: Document) -> None:
        assert document("cache", "verify") == expected("cache-verify")

    @pytest.mark.usefixtures("untouched")
    def test_cache_prune_removes_none_of_them(self, document: Document) -> None:
        assert document("cache", "prune", "--dry-run")["removed"] == []

    @pytest.mark.usefixtures("untouched")
    @pytest.mark.parametrize(
        ("options", "cache"),
        [
            (("tiny-gesture", "--T", 4), "tiny-gesture/T4-number-6e6ac532c373.h5"),
            (("tiny-gesture", "--T", 4, "--recipe", "published"), "tiny-gesture/T4-number-remainder-0048841a328f.h5"),
            (
                ("tiny-gesture", "--set", "frames.slicing=duration", "--set", "frames.duration_us=20000"),
                "tiny-gesture/20000us-f714644740e6.h5",
            ),
            (("tiny-mnist",), "tiny-mnist/images-4c0bf6dba407.h5"),
        ],
    )
    def test_prepare_finds_the_cache_of_the_same_raw_data(
        self, document: Document, options: tuple[object, ...], cache: str
    ) -> None:
        raw = "raw/mnist" if "tiny-mnist" in options else "raw/gesture"
        found = document("prepare", *options, "--raw", raw, "--no-checksum", "--dry-run")
        assert (found["state"], Path(found["path"]).parts[-2:]) == ("hit", Path(cache).parts)


class TestRuns:
    @pytest.mark.usefixtures("untouched")
    def test_runs_ls_lists_them_as_0_1_0_did(self, document: Document) -> None:
        for found, wanted in zip(document("runs", "ls"), expected("runs-ls"), strict=True):
            first, second = shared(found, wanted, *today(wanted))
            assert first == second

    @pytest.mark.usefixtures("untouched")
    @pytest.mark.parametrize("kind", RUNS)
    def test_runs_show_reports_the_same_numbers(self, document: Document, kind: str) -> None:
        found, wanted = document("runs", "show", RUNS[kind]), expected("runs-show")[RUNS[kind]]
        fields = ("run", "status", "experiment", "protocol", "recipe", "epoch", "epochs", "accuracy", "samples")
        first, second = shared(found, wanted, *fields, "environment")
        assert first == second
        assert found["cache"]["content_digest"] == wanted["cache"]["content_digest"]
        for name in ("best", "last"):
            row = today(wanted[name])
            if (
                name == "best" and kind == "published"
            ):  # of equal epochs its recipe reports the latest, 0.1.0 showed the first
                assert found["best"]["test_accuracy"] == row["test_accuracy"]
                assert found["best"]["epoch"] > row["epoch"]
                continue
            assert {key: today(found[name]).get(key) for key in row} == row
        changes = [(change["key"], change["run"], change["registry"]) for change in found["changes"]]
        assert changes == [(change["key"], change["run"], change["registry"]) for change in wanted["changes"]]
        assert set(wanted["files"]) <= set(found["files"])

    @pytest.mark.usefixtures("untouched")
    @pytest.mark.parametrize("name", IMPORTED)
    def test_runs_show_reports_imported_runs(self, document: Document, name: str) -> None:
        first, second = today(document("runs", "show", name)), today(expected("runs-show")[name])
        assert {key: first.get(key) for key in second} == second

    @pytest.mark.usefixtures("untouched")
    def test_runs_verify_finds_nothing_wrong(self, document: Document) -> None:
        assert document("runs", "verify") == expected("runs-verify")

    @pytest.mark.usefixtures("untouched")
    def test_runs_compare_gives_the_same_epochs(self, document: Document) -> None:
        found = document("runs", "compare", RUNS["A"], RUNS["B"], RUNS["set"], IMPORTED[0])
        wanted = expected("runs-compare")
        assert found["runs"] == wanted["runs"]
        assert found["epochs"] == wanted["epochs"]
        settings = today(found["settings"])
        assert {key: settings.get(key) for key in wanted["settings"]} == today(wanted["settings"])

    @pytest.mark.usefixtures("untouched")
    @pytest.mark.parametrize("kind", RUNS)
    def test_digest_of_the_stored_spec_is_the_one_in_its_config(self, artefacts: Path, kind: str) -> None:
        path = artefacts / "runs" / RUNS[kind]
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        assert _digest_of_run(path) == config["digest"]
        assert config["digest"][:12] in path.name

    @pytest.mark.usefixtures("untouched")
    def test_dry_run_by_the_old_name_of_a_recipe_finds_its_cache(self, document: Document) -> None:
        found = document("train", "tiny-plif", "--recipe", "published", "--dry-run")
        assert (found["train"], found["test"], found["steps_per_epoch"]) == (33, 11, 9)
        assert Path(found["cache"]).name == "T4-number-remainder-0048841a328f.h5"
        assert found["recipe"] in ("published", "authors")


def _digest_of_run(path: Path) -> str:
    """Returns the digest of a run's experiment as the code under test calculates it."""
    from plifctl.runs import Run

    return str(Run(path).config().spec.digest)


class TestNetworks:
    @pytest.mark.usefixtures("untouched")
    @pytest.mark.parametrize("target", [*FINISHED, *EXPORTED])
    def test_eval_gives_the_same_answers(self, document: Document, target: str) -> None:
        self._compare(document("eval", target), expected("eval")[target])

    @pytest.mark.usefixtures("untouched")
    @pytest.mark.parametrize(
        ("options", "file"), [(("--checkpoint", "last"), "eval-last"), (("--fold-bn",), "eval-folded")]
    )
    def test_eval_with_options_gives_the_same_answers(
        self, document: Document, options: tuple[str, ...], file: str
    ) -> None:
        found, wanted = document("eval", RUNS["A"], *options), expected(file)
        self._compare(found, wanted)
        assert found["folded"] == wanted["folded"]

    @pytest.mark.parametrize("kind", ["A", "B", "images"])
    def test_run_of_0_1_0_keeps_controls_beside_files_that_stay_as_they_are(
        self, document: Document, artefacts: Path, kind: str
    ) -> None:
        path = artefacts / "runs" / RUNS[kind]
        before = content_of(path)
        found = document("eval", RUNS[kind], "--controls")
        assert found["kept_in"] == str(path)
        assert len(found["controls"]) == (3 if kind == "images" else 7)
        after = content_of(path)
        assert after.keys() - before.keys() <= {"controls.json", ".lock"}
        assert {name: after[name] for name in before} == before
        assert document("runs", "verify", RUNS[kind]) == {RUNS[kind]: []}
        assert [one["problem"] for one in document("runs", "show", RUNS[kind])["controls"]] == [""] * len(
            found["controls"]
        )

    def _compare(self, found: dict[str, Any], wanted: dict[str, Any]) -> None:
        first, second = shared(found, wanted, "experiment", "recipe", "T", "samples", "accuracy", "confusion")
        assert first == second
        assert found["accuracy_after_steps"] == wanted["accuracy_after_steps"]
        for name in ("tau", "firing_rate"):
            values = [[layer[name] for layer in tree["layers"]] for tree in (found, wanted)]
            assert values[0] == pytest.approx(values[1], abs=1e-4)
        total = wanted["operations"]["total"]
        assert found["operations"]["total"] == pytest.approx(total, rel=1e-3)

    @pytest.mark.usefixtures("untouched")
    @pytest.mark.parametrize("source", ["A", "exports/A.pt", "exports/checkpoint-best.pt"])
    @pytest.mark.parametrize("ending", ["pt", "npz"])
    @pytest.mark.parametrize("folded", [False, True])
    def test_export_gives_the_same_network(self, document: Document, source: str, ending: str, folded: bool) -> None:
        Path("new").mkdir()
        file = f"new/again.{ending}"
        document("export", RUNS.get(source, source), file, *(["--fold-bn"] if folded else []))
        wanted = self._loaded(f"exports/A{'-folded' if folded else ''}.{ending}")
        found = self._loaded(file)
        weights = wanted.pop("model")
        assert set(found["model"]) == set(weights)
        for name, weight in weights.items():
            assert found["model"][name].dtype == weight.dtype
            # what is folded is calculated, the rest copied
            np.testing.assert_allclose(found["model"][name], weight, rtol=1e-6 if folded else 0, atol=0)
        for name in ("digest", "cache", "classes", "input_shape", "T", "mean", "std"):
            assert found[name] == wanted[name]

    def _loaded(self, file: str) -> dict[str, Any]:
        """Returns an exported file; its weights, as arrays, under ``model``."""
        if file.endswith(".pt"):
            tree = torch.load(file, weights_only=True)
            return {**tree, "model": {name: weight.numpy() for name, weight in tree["model"].items()}}
        arrays = np.load(file, allow_pickle=False)
        weights = {name: arrays[name] for name in arrays.files if "." in name}
        return {"model": weights, **{name: arrays[name].tolist() for name in arrays.files if "." not in name}}


class TestReports:
    @pytest.mark.usefixtures("untouched")
    @pytest.mark.parametrize(
        ("options", "file"),
        [
            (("--table", "mine"), "report"),
            (("--table", "mine", "--include-modified"), "report-modified"),
            (("--table", "4", "--source", "imported"), "report-logs"),  # no logs of the authors, whatever their name
        ],
    )
    def test_tables_hold_the_same_numbers(self, document: Document, options: tuple[str, ...], file: str) -> None:
        (found,), (wanted,) = document("report", *options), expected(file)
        caption = f"{wanted['caption']}; results of protocol A are maxima over test epochs"
        assert (found["caption"], found["source"]) == (caption, wanted["source"])
        places = ("row", "column", "T", "epochs", "protocol", "recipe", "seeds", "runs")
        first, second = (
            [
                {
                    "reported": reported(entry),
                    "result": entry.get(result),
                    **{name: today(entry.get(name)) for name in places},
                }
                for entry in entries
            ]
            for entries, result in ((found["entries"], "result"), (wanted["entries"], "ours"))
        )
        if file == "report-modified":  # the runs that are not modified stand beside those that are
            first = [entry for entry in first if entry in second]
        assert first == second

    @pytest.mark.usefixtures("untouched")
    def test_figures_are_drawn_from_recorded_spikes_and_curves(self, document: Document) -> None:
        Path("new").mkdir()
        for figure, run in (("S2", RUNS["A"]), ("6", RUNS["set"]), ("6", IMPORTED[0])):
            document("report", "--figure", figure, "--run", run, "--out", f"new/{figure}-{run}.svg")
            assert "</svg>" in Path(f"new/{figure}-{run}.svg").read_text(encoding="utf-8")

    @pytest.mark.usefixtures("untouched")
    def test_page_holds_every_run(self, document: Document) -> None:
        document("report", "--html", "new")
        page = Path("new/index.html").read_text(encoding="utf-8")
        assert [name for name in [*RUNS.values(), *IMPORTED] if name not in page] == []


TRAINING_VERSION_1 = """
from functools import partial
from torch import nn
from plifctl.cli.app import main
from plifctl.snn import networks
from plifctl.snn.kernels import event_driven
event_driven.can_be_event_driven = lambda weight: False
networks.Linear = partial(nn.Linear, bias=False)
main()
"""
"""The command line with the products of 0.1.0: dense, of weights in torch's order of memory."""
COMMAND_LINES = {"as then": ["-c", TRAINING_VERSION_1], "as now": ["-m", "plifctl"]}


def _machine() -> dict[str, str]:
    """Returns what the last bits of a training depend on, beside the number of threads."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    vendor = next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")
    capability = torch.backends.cpu.get_cpu_capability()
    return {"capability": capability, "vendor": vendor, "torch": torch.__version__}


@pytest.mark.slow
class TestResume:
    @pytest.mark.parametrize("products", COMMAND_LINES)
    @pytest.mark.parametrize(("kind", "verb", "protocol"), [("stopped", "train", "A"), ("killed", "validate", "B")])
    def test_interrupted_run_ends_as_0_1_0_would_have_ended_it(
        self, artefacts: Path, kind: str, verb: str, protocol: str, products: str
    ) -> None:
        # a process of its own: the artefacts were made with one thread, and two add up in another order
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        command = [sys.executable, *COMMAND_LINES[products], verb, "--resume", RUNS[kind], "--json"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        made_on, same_bits = expected("machine"), _machine()
        exact = products == "as then" and {name: made_on[name] for name in same_bits} == same_bits
        wanted = HERE / "expected/resumed" / kind
        run = artefacts / "runs" / RUNS[kind]

        record, record_of_then = json.loads(ended.stdout), json.loads((wanted / "result.json").read_text())
        fields = ("run", "experiment", "recipe", "protocol", "digest", "epochs", "seed", "T", "overrides", "data")
        first, second = shared(record, record_of_then, *fields, "best_epoch", "accuracy", "validation_accuracy")
        assert first == second
        assert record["protocol"] == protocol
        rows, rows_of_then = (rows_in(at / "metrics.jsonl") for at in (run, wanted))
        assert len(rows) == len(rows_of_then)
        for row, row_of_then in zip(rows, rows_of_then, strict=True):
            assert (row["epoch"], row["layers"]) == (row_of_then["epoch"], row_of_then["layers"])
            measured = ("loss", "train_accuracy", "validation_accuracy", "test_accuracy", "lr")
            for name in (name for name in measured if row[name] is not None or row_of_then[name] is not None):
                assert row[name] == (row_of_then[name] if exact else pytest.approx(row_of_then[name], rel=1e-5))
            for name in ("tau", "firing_rate"):
                assert row[name] == (row_of_then[name] if exact else pytest.approx(row_of_then[name], rel=1e-5))
        for which in ("last", "best"):
            weights = torch.load(run / f"checkpoints/{which}.pt", weights_only=True)["model"]
            arrays = np.load(wanted / f"{which}.npz")
            assert set(weights) == set(arrays.files)
            for name, weight in weights.items():
                limit = 0.0 if exact else 1e-5
                np.testing.assert_allclose(weight.numpy(), arrays[name], rtol=limit, atol=limit, err_msg=name)

    def test_finished_run_is_trained_longer_and_keeps_its_epochs(self, document: Document, artefacts: Path) -> None:
        path = artefacts / "runs" / RUNS["published"] / "metrics.jsonl"
        before, content = rows_in(path), path.read_bytes()
        record = document("train", "--resume", RUNS["published"], "--epochs", 6)
        after = rows_in(path)
        assert path.read_bytes().startswith(content)  # appended to, not rewritten
        assert [row["epoch"] for row in after] == [1, 2, 3, 4, 5, 6]
        assert [{key: row.get(key) for key in wanted} for row, wanted in zip(after, before, strict=False)] == before
        assert record["epochs"] == 6
        assert record["recipe"] in ("published", "authors")
        assert document("runs", "verify", RUNS["published"]) == {RUNS["published"]: []}

    def test_run_trained_longer_keeps_the_predictions_that_its_best_checkpoint_lacks(
        self, document: Document, artefacts: Path
    ) -> None:
        run = Run(artefacts / "runs" / RUNS["published"])
        assert run.predictions() is None
        record = document("train", "--resume", run.name, "--epochs", 6)
        found = run.predictions()
        assert found is not None
        assert (found.accuracy, found.epoch) == (record["accuracy"], record["best_epoch"])
        assert list(found.sample_ids) == run.split()["test"]
        assert document("eval", run.name)["kept_predictions"]["different"] == []

    @pytest.mark.usefixtures("untouched")
    def test_other_settings_are_refused(self, plifctl: Plifctl) -> None:
        found = plifctl("train", "--resume", RUNS["stopped"], "--set", "train.lr=0.5")
        assert found.code == 3
        assert "train.lr: was 0.02, now 0.5" in found.err
