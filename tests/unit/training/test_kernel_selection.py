"""The choice of a kernel on a GPU, with candidates that fail in every way; no GPU is needed."""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import tiny_spec

from plifctl import paths
from plifctl.runs.sessions import summarize_environment
from plifctl.training import kernel_selection
from plifctl.training.gpus import gpu_of, list_gpus
from plifctl.training.kernel_selection import (
    Candidate,
    Selection,
    remembered_selections,
    select_kernel,
)
from plifctl.training.kernel_trial import TrialRequest, write_request

GPU = torch.device("cuda")
DEFINITION, TRITON, COMPILED = (
    Candidate(kernel, run=f"kernel_trials:{run}")  # type: ignore[arg-type]
    for kernel, run in (("eager", "slow"), ("triton", "fast"), ("compiled", "slow"))
)
ROW = "0, GPU-1234, Test GPU 80GB, 550.54.15, Default, [N/A], 81559"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what nvidia-smi prints, one line for each GPU; the user's cache folder is empty."""
    monkeypatch.setattr(paths.platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    monkeypatch.setattr(paths, "code_version", lambda: "0.2.0")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(kernel_selection.TRIALS_VARIABLE, raising=False)

    def prints(*lines: str) -> None:
        script = tmp_path / "nvidia-smi"
        script.write_text("#!/bin/sh\ncat <<'END'\n" + "\n".join(lines) + "\nEND\n")
        script.chmod(0o755)

    prints(ROW)
    return prints


@pytest.fixture
def tried(driver: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Answers trials without processes: the kernels tried, in order."""
    found: list[str] = []

    def run(request: Any, candidate: Candidate, graphs: tuple[bool, ...], limit: float) -> Any:
        found.append(candidate.kernel)
        seconds = {"eager": 0.004, "triton": 0.001, "compiled": 0.003}[candidate.kernel]
        return {graph: {"graph": graph, "seconds": seconds / (2 if graph else 1)} for graph in graphs}, "", False

    monkeypatch.setattr(kernel_selection, "_run_process", run)
    return found


def choose(*candidates: Candidate, settings: tuple[str, ...] = (), **options: Any) -> Selection:
    return select_kernel(tiny_spec(*settings), GPU, candidates=candidates or kernel_selection.CANDIDATES, **options)


class TestRules:
    """When trials run, and what is used without them."""

    def test_select_first_time_tries_all_and_takes_the_fastest(
        self, tried: list[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, "plifctl"):
            found = choose()
        assert tried == ["eager", "triton", "compiled"]
        assert (found.kernel, found.graph, found.by, found.speedup) == ("triton", True, "trials", 8.0)
        assert found.describe() == "triton + graph, 8.0 × the definition; checked on this GPU"
        assert "trying 6 ways to compute a step on Test GPU 80GB, at most 60 s" in caplog.text

    def test_select_second_time_remembers(self, tried: list[str]) -> None:
        first, second = choose(), choose()
        assert len(tried) == 3
        assert second.by == "remembered"
        assert (second.kernel, second.graph, second.speedup) == (first.kernel, first.graph, first.speedup)
        assert second.describe().endswith(f"checked on this GPU on {first.checked}")

    @pytest.mark.parametrize(
        "settings", [("train.batch_size=6",), ("T=3",), ("neuron.tau_per=channel",), ("train.precision=bf16",)], ids=str
    )
    def test_select_other_network_or_shapes_tries_again(self, tried: list[str], settings: tuple[str, ...]) -> None:
        choose()
        assert choose(settings=settings).by == "trials"

    @pytest.mark.parametrize("settings", [("train.seed=7",), ("train.epochs=9",), ("train.lr=0.5",)], ids=str)
    def test_select_same_step_of_another_experiment_is_remembered(
        self, tried: list[str], settings: tuple[str, ...]
    ) -> None:
        choose()
        assert choose(settings=settings).by == "remembered"

    def test_select_other_gpu_driver_or_version_tries_again(
        self, tried: list[str], driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        choose()
        for row in (ROW.replace("Test", "Other"), ROW.replace("550", "560"), ROW.replace("[N/A]", "Enabled")):
            driver(row)
            assert choose().by == "trials"
        driver(ROW)
        for package, name in ((torch, "__version__"), (paths, "code_version")):
            with monkeypatch.context() as patch:
                patch.setattr(package, name, "99" if name == "__version__" else lambda: "99")
                assert choose().by == "trials"
        assert choose().by == "remembered"

    @pytest.mark.parametrize("content", ["", "{", "[]", '{"key": {}, "choice": {}}'])
    def test_select_damaged_memory_tries_again(self, tried: list[str], content: str) -> None:
        choose()
        path = remembered_selections()[0].path
        tree = json.loads(path.read_text())
        path.write_text(content)
        assert choose().by == "trials"
        for wrong in ({"kernel": "quick"}, {"seconds": None}, {"unfinished": "x"}):
            path.write_text(json.dumps({**tree, "choice": {**tree["choice"], **wrong}}))
            assert choose().by == "trials"

    def test_select_explicit_kernel_never_tries(self, tried: list[str]) -> None:
        found = [choose(kernel=kernel, graph=graph) for kernel in ("eager", "triton") for graph in (None, True)]
        assert [(one.kernel, one.graph, one.by) for one in found] == [
            ("eager", False, "option"),
            ("eager", True, "option"),
            ("triton", False, "option"),
            ("triton", True, "option"),
        ]
        assert tried == []

    def test_select_on_the_cpu_keeps_auto_and_never_tries(self, tried: list[str]) -> None:
        found = select_kernel(tiny_spec(), torch.device("cpu"))
        assert found.to_environment() == {"kernel": "auto", "graph": False}
        assert select_kernel(tiny_spec(), torch.device("mps")).kernel == "eager"
        assert tried == []

    def test_select_resumed_on_the_cpu_uses_what_the_run_recorded(self, tried: list[str]) -> None:
        cpu, recorded = torch.device("cpu"), {"device": "cpu", "graph": False}
        for kernel in ("eager", "fused"):
            found = select_kernel(tiny_spec(), cpu, recorded={**recorded, "kernel": kernel})
            assert (found.kernel, found.by) == (kernel, "run")
        for other in ({**recorded, "kernel": "auto"}, {"device": "cuda", "kernel": "eager"}, {"device": "cpu"}):
            assert select_kernel(tiny_spec(), cpu, recorded=other).kernel == "auto"
        assert (
            select_kernel(tiny_spec(), cpu, recorded={**recorded, "kernel": "compiled"}, processes=2).kernel == "auto"
        )
        assert tried == []

    def test_select_while_another_process_tries_waits_for_its_choice(
        self, tried: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        acquire, free = kernel_selection.filelock.FileLock.acquire, []

        def held(lock: Any, timeout: float) -> Any:
            if not free:
                free.append(timeout)
                raise kernel_selection.filelock.Timeout(lock.lock_file)
            return acquire(lock, timeout=timeout)

        monkeypatch.setattr(kernel_selection.filelock.FileLock, "acquire", held)
        with caplog.at_level(logging.INFO, "plifctl"):
            assert choose().by == "trials"
        assert "waiting for another process that tries kernels" in caplog.text

    def test_select_never_or_later_uses_the_definition(self, tried: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        later = choose(trials="later")
        assert (later.kernel, later.graph) == ("eager", False)
        assert later.describe() == "chosen by trials when the training starts"
        monkeypatch.setenv("PLIFCTL_KERNEL_TRIALS", "off")
        assert choose().to_environment() == {"kernel": "eager", "graph": False}
        monkeypatch.delenv("PLIFCTL_KERNEL_TRIALS")
        assert tried == []
        choose()
        assert choose(trials="later").kernel == "triton"
        assert choose(trials="never").kernel == "eager"  # also what is remembered depends on a time

    def test_select_graph_option_limits_the_choice(self, tried: list[str]) -> None:
        assert (choose(graph=False).kernel, choose(graph=False).graph) == ("triton", False)
        assert set(choose(graph=True).seconds) == {"definition + graph", "triton + graph", "torch.compile + graph"}

    def test_select_step_that_no_graph_can_record_is_tried_without(self, tried: list[str]) -> None:
        assert set(choose(settings=("train.accumulate=2",)).seconds) == {"definition", "triton", "torch.compile"}

    def test_select_several_ranks_leave_graphs_and_torch_compile_out(self, tried: list[str]) -> None:
        assert set(choose(processes=2).seconds) == {"definition", "triton"}

    def test_select_resumed_uses_what_the_run_recorded(self, tried: list[str]) -> None:
        recorded = {"device": "Test GPU 80GB", **choose().to_environment()}
        tried.clear()
        found = choose(recorded=recorded, settings=("T=5",))
        assert (found.kernel, found.graph, found.by, tried) == ("triton", True, "run", [])
        assert found.to_environment()["kernel_choice"]["checked"] == recorded["kernel_choice"]["checked"]
        assert choose(recorded=recorded, kernel="eager").by == "option"
        assert choose(recorded=recorded, graph=False).graph is False
        old = choose(recorded={"device": "Test GPU 80GB", "kernel": "auto", "graph": False})  # before there were trials
        assert (old.kernel, old.by) == ("eager", "run")
        assert tried == []

    def test_select_resumed_with_several_ranks_or_deterministic_is_not_what_these_exclude(
        self, tried: list[str]
    ) -> None:
        recorded = {"device": "Test GPU 80GB", "kernel": "compiled", "graph": False}
        assert choose(recorded=recorded).kernel == "compiled"
        assert choose(recorded=recorded, processes=2).kernel != "compiled"
        assert choose(recorded=recorded, trials="never").kernel == "eager"
        assert choose(recorded=recorded | {"kernel": "triton"}, processes=2).kernel == "triton"

    def test_summarize_environment_makes_one_text_of_the_choice(self, tried: list[str]) -> None:
        environment = {"device": "Test GPU 80GB", **choose().to_environment(), "deterministic": False}
        found = summarize_environment(environment)
        assert set(found) == {"device", "kernel", "deterministic"}
        assert found["kernel"].startswith("triton + graph, 8.0 × the definition; checked on this GPU on 2")
        assert summarize_environment({"kernel": "auto", "graph": False}) == {"kernel": "auto", "graph": False}

    def test_select_resumed_on_another_device_chooses_again(
        self, tried: list[str], driver: Callable[..., None]
    ) -> None:
        recorded = {"device": "Test GPU 80GB", **choose().to_environment()}
        driver(ROW.replace("Test", "Other"))
        assert choose(recorded=recorded).by == "trials"
        assert choose(recorded={"device": "cpu", "kernel": "auto", "graph": False}).by == "remembered"

    def test_select_what_found_no_time_is_tried_again_three_times(
        self, tried: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        in_time, run = False, kernel_selection._run_process

        def slow_compiler(request: Any, candidate: Candidate, graphs: tuple[bool, ...], limit: float) -> Any:
            answers, *_ = run(request, candidate, graphs, limit)
            if candidate.kernel == "compiled" and not in_time:
                return {}, f"no answer within {limit:.0f} s", True
            return answers, "", False

        monkeypatch.setattr(kernel_selection, "_run_process", slow_compiler)
        first = choose()
        assert (first.label, first.unfinished) == ("triton + graph", {"torch.compile": 1, "torch.compile + graph": 1})
        assert "torch.compile, torch.compile + graph: no answer within" in caplog.text
        assert caplog.text.count("the next training tries again") == 1
        tried.clear()
        assert choose(trials="later").label == "triton + graph"
        assert tried == []
        assert choose().unfinished == {"torch.compile": 2, "torch.compile + graph": 2}
        assert tried == ["compiled"]
        third = choose()
        assert caplog.text.count("the next training tries again") == 2
        assert (third.is_final, choose().by, tried) == (True, "remembered", ["compiled", "compiled"])
        path = remembered_selections()[0].path
        tree = json.loads(path.read_text())
        path.write_text(json.dumps({**tree, "choice": {**tree["choice"], "unfinished": {"torch.compile": 1}}}))
        in_time = True
        fourth = choose()
        assert "torch.compile" in fourth.seconds
        assert "torch.compile" not in fourth.left_out
        assert (fourth.label, fourth.speedup, fourth.is_final) == ("triton + graph", 8.0, True)

    @pytest.mark.parametrize("reason", ["out of memory", "the GPU does not admit another process"])
    def test_select_what_another_process_kept_from_running_is_tried_again(
        self, tried: list[str], monkeypatch: pytest.MonkeyPatch, reason: str
    ) -> None:
        blocked, run = {"eager", "triton", "compiled"}, kernel_selection._run_process

        def in_company(request: Any, candidate: Candidate, graphs: tuple[bool, ...], limit: float) -> Any:
            answers, *rest = run(request, candidate, graphs, limit)
            if candidate.kernel in blocked:
                answers = {graph: {"graph": graph, "left_out": reason} for graph in graphs}
            return answers, *rest

        monkeypatch.setattr(kernel_selection, "_run_process", in_company)
        first = choose()
        assert (first.kernel, remembered_selections()) == ("eager", [])
        assert "the next training tries again" in first.describe()
        blocked -= {"eager", "compiled"}
        second = choose()
        assert (second.label, second.unfinished) == ("torch.compile + graph", {"triton": 1, "triton + graph": 1})
        blocked.clear()
        third = choose()
        assert (third.label, third.speedup, third.is_final) == ("triton + graph", 8.0, True)

    def test_select_without_a_writable_cache_folder_chooses_and_warns(
        self, tried: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "plifctl").write_text("a file in place of the folder")
        assert choose().kernel == "triton"
        assert "the choice is not remembered" in caplog.text


@pytest.mark.slow
class TestProcesses:
    """Candidates in processes of their own."""

    def test_trials_of_real_kernels_choose_one_and_refuse_a_wrong_one(self, driver: None) -> None:
        found = choose(
            Candidate("eager", run="kernel_trials:on_cpu"),
            Candidate("fused", run="kernel_trials:on_cpu"),
            Candidate("triton", run="kernel_trials:wrong"),
            seconds=250.0,
        )
        assert set(found.seconds) == {"definition", "definition + graph", "fused", "fused + graph"}
        assert found.label in found.seconds
        assert set(found.left_out) == {"triton", "triton + graph"}
        assert "differ" in found.left_out["triton"]
        assert "float64" in found.left_out["triton"]

    def test_trials_crash_keeps_the_answers_before_it(self, driver: None, caplog: pytest.LogCaptureFixture) -> None:
        found = choose(DEFINITION, Candidate("triton", run="kernel_trials:crash_in_graph"), seconds=200.0)
        assert set(found.seconds) == {"definition", "definition + graph", "triton"}
        assert found.left_out == {"triton + graph": "its process died of SIGSEGV"}
        assert "kernel left out: triton + graph: its process died of SIGSEGV" in caplog.text

    def test_trials_failed_builds_are_named_with_their_cause(
        self, driver: None, caplog: pytest.LogCaptureFixture
    ) -> None:
        found = choose(
            DEFINITION,
            Candidate("triton", run="kernel_trials:without_compiler"),
            Candidate("compiled", run="kernel_trials:end"),
            seconds=200.0,
        )
        assert (found.kernel, found.graph) == ("eager", True)
        assert "kernel left out: triton, triton + graph: needs a C compiler" in caplog.text
        assert "apt install gcc" in found.left_out["triton"]
        assert found.left_out["torch.compile"] == (
            "its process ended with code 1: no kernel image is available for execution on the device"
        )
        assert set(found.unfinished) == {"torch.compile", "torch.compile + graph"}  # it ended before any answer

    def test_trials_hang_is_stopped_and_the_definition_used(self, driver: None) -> None:
        found = choose(Candidate("triton", run="kernel_trials:hang"), seconds=2.0)
        assert found.left_out["triton"] == "no answer within 2 s"
        assert (found.kernel, found.unfinished) == ("eager", {"triton": 1, "triton + graph": 1})
        assert found.describe() == "definition; not checked: no candidate could be tried; the next training tries again"
        assert remembered_selections() == []

    def test_trials_exclusive_mode_is_said_and_not_remembered(self, driver: Callable[..., None]) -> None:
        driver(ROW.replace("Default", "Exclusive_Process"))
        found = choose(Candidate("triton", run="kernel_trials:busy"), seconds=100.0)
        assert "another process" in found.left_out["triton"]
        assert "the GPU is in exclusive mode and open already" in found.describe()
        assert "exclusive mode" in found.to_environment()["kernel_choice"]["note"]
        assert remembered_selections() == []


@pytest.mark.slow
def test_trial_that_nothing_stops_ends_by_itself(tmp_path: Path) -> None:
    """A process whose parent was killed does not hold the GPU for ever."""
    request = TrialRequest(
        spec=tiny_spec().model_dump_json(),
        device="cpu",
        kernel="eager",
        graphs=(False,),
        seconds=1.0,
        limit=1,
        answers=str(tmp_path / "answers"),
        run="kernel_trials:hang",
    )
    write_request(request, tmp_path / "request")
    command = [sys.executable, "-m", "plifctl.training.kernel_trial", str(tmp_path / "request")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    ended = subprocess.run(command, env=environment, timeout=200, check=False)
    assert ended.returncode == -signal.SIGALRM


class TestGpus:
    """What nvidia-smi says of the GPUs."""

    def test_list_gpus_reads_every_field(self, driver: Callable[..., None]) -> None:
        driver(ROW, "1, GPU-5678, Small GPU, 550.54.15, Exclusive_Process, Enabled, [N/A]", "garbage")
        first, second = list_gpus()
        assert (first.name, first.driver, first.exclusive, first.memory_mib) == (
            *("Test GPU 80GB", "550.54.15"),
            False,
            81559,
        )
        assert (second.name, second.exclusive, second.memory_mib) == ("Small GPU (MIG)", True, None)

    @pytest.mark.parametrize(
        ("visible", "device", "name"),
        [
            (None, "cuda:1", "Small GPU"),
            ("1", "cuda", "Small GPU"),
            ("1,0", "cuda:1", "Test GPU 80GB"),
            ("GPU-56", "cuda:0", "Small GPU"),
            ("MIG-abc", "cuda:0", "Test GPU 80GB MIG-abc"),
        ],
    )
    def test_gpu_of_device_follows_visible_devices(
        self, driver: Callable[..., None], visible: str | None, device: str, name: str
    ) -> None:
        driver(ROW, "1, GPU-5678, Small GPU, 550.54.15, Default, Disabled, 8192")
        environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
        assert gpu_of(torch.device(device), environment).name == name

    def test_list_gpus_without_nvidia_smi_is_empty(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert list_gpus() == []
