"""plifctl doctor: what it shows, when it says that training cannot run, and the times of an experiment."""

import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from plifctl import paths
from plifctl.pipeline import doctor
from plifctl.training.kernel_selection import TRIALS_VARIABLE, Selection

Plifctl = Callable[..., Any]
BENCH = ("--set", "train.batch_size=11", "--set", "T=4", "--seconds", 0.3)


@pytest.fixture(autouse=True)
def user_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "user" / name))
    monkeypatch.delenv(TRIALS_VARIABLE, raising=False)


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, row: str) -> None:
    """Puts an nvidia-smi on the PATH that prints a line."""
    (folder / "bin").mkdir()
    script = folder / "bin" / "nvidia-smi"
    script.write_text(f"#!/bin/sh\necho '{row}'\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")


def test_doctor_shows_every_section_in_80_columns(plifctl: Plifctl, places: Path) -> None:
    result = plifctl("doctor")
    assert result.code == 0
    for text in ("machine", "processor", "versions", "torch", "kernels", "CPU", "folders", "training can run"):
        assert text in result.out
    assert str(places / "runs") in result.out
    assert f"{len(list(paths.registry_dirs()[0].glob('experiments/*.yaml')))} experiment files; " in result.out
    assert "\x1b" not in result.out
    # a path is never broken
    assert all(len(line) <= 80 or len(line.split()) <= 2 for line in result.out.splitlines())


def test_doctor_json_is_one_document(plifctl: Plifctl, places: Path) -> None:
    found = json.loads(plifctl("doctor", "--json").out)
    assert found["can_train"] is True
    assert found["machine"]["vector_bits"] in (128, 256, 512)
    assert found["versions"]["torch"]
    caches = next(place for place in found["places"] if place["name"] == "caches")
    assert (caches["path"], caches["writable"]) == (str(places / "data_cache"), True)
    assert 0 < caches["free_bytes"] <= caches["total_bytes"]


def test_doctor_counts_caches_and_runs(plifctl: Plifctl, gestures: Path) -> None:
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).code == 0
    found = {place["name"]: place for place in json.loads(plifctl("doctor", "--json").out)["places"]}
    assert found["caches"]["entries"] == 1
    assert found["caches"]["bytes"] > 1000
    assert (found["runs"]["entries"], found["runs"]["exists"]) == (0, False)


def test_doctor_package_that_cannot_be_imported_is_a_problem(plifctl: Plifctl, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        if name == "tonic":
            raise ImportError("libtonic.so: cannot open shared object file")
        return importlib.__import__(name)

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    result = plifctl("doctor")
    assert result.code == 1
    assert "training can run" not in result.out
    assert "tonic: cannot be imported: libtonic.so" in result.out
    assert "pip install" in result.out


def test_doctor_folder_that_cannot_be_written_is_a_problem(plifctl: Plifctl, places: Path) -> None:
    (places / "file").write_text("not a folder")
    result = plifctl("doctor", "--runs-dir", places / "file" / "runs", "--json")
    assert result.code == 1
    (problem,) = json.loads(result.out)["problems"]
    assert problem.endswith("cannot be written; set PLIFCTL_RUNS_DIR to a folder of yours")


def test_doctor_invalid_registry_is_a_problem(plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (places / "own" / "networks").mkdir(parents=True)
    (places / "own" / "networks" / "mine.yaml").write_text("nonsense: 1\n")
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "own"))
    result = plifctl("doctor")
    assert result.code == 1
    assert "plifctl check" in result.out


def test_doctor_registry_folder_that_does_not_exist_is_one_problem(
    plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "nowhere"))
    result = plifctl("doctor", "--json")
    assert result.code == 1
    assert json.loads(result.out)["problems"] == [f"PLIFCTL_REGISTRY={places / 'nowhere'}: no such folder"]


def test_doctor_gpu_without_torch_for_it_names_the_command(
    plifctl: Plifctl, places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi(places, monkeypatch, "0, GPU-1, Test GPU, 550.54, Exclusive_Process, [N/A], 81559")
    monkeypatch.setattr("torch.version.cuda", None)
    monkeypatch.setattr("torch.version.hip", None)
    result = plifctl("doctor")
    assert result.code == 0  # the CPU trains
    assert "Test GPU, 80 GiB, driver 550.54, exclusive mode: one process at a time" in " ".join(result.out.split())
    assert "torch with CUDA" in result.out
    assert "pip install --force-reinstall torch" in result.out
    assert "chosen by trials when the first training starts" in " ".join(result.out.split())
    monkeypatch.setenv(TRIALS_VARIABLE, "off")
    assert "definition: PLIFCTL_KERNEL_TRIALS=off" in plifctl("doctor").out


def test_doctor_shows_remembered_kernels_and_what_was_left_out(plifctl: Plifctl) -> None:
    seconds, left_out = {"definition": 0.004, "triton + graph": 0.001}, {"torch.compile": "needs a C compiler"}
    chosen = Selection("triton", True, "trials", "Test GPU", 4.0, "2026-11-28", seconds, left_out)
    folder = paths.kernels_dir()
    folder.mkdir(parents=True)
    tree = {"experiment": "gesture-plif", "key": {"T": 20}, "choice": asdict(chosen)}
    (folder / "abc.json").write_text(json.dumps(tree))
    (folder / "damaged.json").write_text("{")
    (folder / "old.json").write_text(json.dumps({"key": {}, "choice": {"kernel": "triton"}}))
    text = " ".join(plifctl("doctor").out.split())
    assert (
        "Test GPU, gesture-plif, T = 20: triton + graph, 4.0 × the definition; checked on this GPU on 2026-11" in text
    )
    assert "steps: definition 4 ms, triton + graph 1 ms" in text
    assert "left out: torch.compile: needs a C compiler" in text
    assert str(folder / "abc.json") in text
    entry = json.loads(plifctl("doctor", "--json").out)["kernels"][-1]
    assert (entry["kernel"], entry["left_out"], entry["seconds"]) == ("triton + graph", left_out, seconds)


def test_doctor_without_a_compiler_names_the_command(plifctl: Plifctl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    missing = {part["part"]: part["command"] for part in json.loads(plifctl("doctor", "--json").out)["missing"]}
    assert missing["a C compiler"] == "apt install gcc python3-dev"


@pytest.mark.parametrize("package", ["nir", "onnx", "onnxruntime", "submitit", "ray"])
def test_doctor_without_an_optional_package_names_the_command(
    plifctl: Plifctl, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    found = json.loads(plifctl("doctor", "--json").out)
    assert found["can_train"] is True
    assert f"python -m pip install {package}" in [part["command"] for part in found["missing"]]


@pytest.mark.slow
def test_doctor_bench_with_cache_times_loading(plifctl: Plifctl, gestures: Path) -> None:
    assert plifctl("prepare", "synthetic-gesture", "--T", 4, "--raw", gestures).code == 0
    result = plifctl("doctor", "--bench", "demo", *BENCH, "--json")
    assert result.code == 0
    found = json.loads(result.out)
    assert (found["samples"], found["prepare"], found["train"], found["test"]) == ("cache", None, 22, 11)
    assert found["steps_per_epoch"] == 2
    assert found["epoch"] == pytest.approx(2 * found["loaded_step"] + found["evaluation_batch"])
    assert found["epoch_without_loading"] == pytest.approx(2 * found["step"] + found["evaluation_batch"])
    assert found["training"] == pytest.approx(found["epochs"] * found["epoch"])
    assert found["kernel"] == "fused"
    text = plifctl("doctor", "--bench", "demo", *BENCH).out
    assert "with loading and augmentation" in text
    assert "2 steps for 22 samples, then a test of 11" in text


def test_doctor_bench_without_cache_says_how_to_prepare_it(plifctl: Plifctl) -> None:
    result = plifctl("doctor", "--bench", "demo", *BENCH)
    assert result.code == 0
    assert "without loading" in result.out
    assert "with loading" not in result.out
    assert "plifctl prepare synthetic-gesture --T 4" in result.err
    found = json.loads(plifctl("doctor", "--bench", "demo", *BENCH, "--json").out)
    assert (found["samples"], found["epoch"], found["loaded_step"]) == ("synthetic", None, None)
    assert found["training"] == pytest.approx(found["epochs"] * found["epoch_without_loading"])


def test_doctor_bench_refuses_unknown_experiments_and_options_without_it(plifctl: Plifctl) -> None:
    assert plifctl("doctor", "--bench", "dmo").code == 2
    result = plifctl("doctor", "--seconds", 3)
    assert result.code == 2
    assert "hint: add --bench EXPERIMENT" in result.err
