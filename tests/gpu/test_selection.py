"""The checks and trials by which a kernel is chosen, on a real GPU."""

from pathlib import Path

import pytest
import torch
from tiny_training import tiny_spec
from untrained import image_spec, make_model

from plifctl import paths
from plifctl.config.choices import Kernel
from plifctl.config.lookup import load_registry
from plifctl.training.kernel_check import check_kernel
from plifctl.training.kernel_selection import Candidate, select_kernel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
GPU = torch.device("cuda")


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["fashion-mnist-plif", "gesture-plif", "demo"])
def test_check_triton_agrees_with_the_definition(name: str, precision: str, graph: bool) -> None:
    spec = load_registry().experiment(name, overrides=[f"train.precision={precision}"]).spec
    check_kernel(spec, GPU, "triton", graph=graph)


@pytest.mark.parametrize("kernel", ["eager", "compiled"])
@pytest.mark.filterwarnings("ignore")
def test_check_recorded_definition_agrees(kernel: Kernel) -> None:
    check_kernel(tiny_spec(), GPU, kernel, graph=True)


def test_select_tries_and_remembers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(paths.platformdirs, "user_cache_dir", lambda name: str(tmp_path))
    monkeypatch.delenv("PLIFCTL_KERNEL_TRIALS", raising=False)
    spec, candidates = tiny_spec(), (Candidate("eager"), Candidate("triton"))
    found = select_kernel(spec, GPU, candidates=candidates)
    assert found.left_out == {}, found.left_out
    assert set(found.seconds) == {"definition", "definition + graph", "triton", "triton + graph"}
    assert select_kernel(spec, GPU, candidates=candidates).by == "remembered"


def test_model_on_a_gpu_takes_images_there_and_moves_to_the_cpu() -> None:
    model = make_model(image_spec("fashion-mnist-plif"))
    model.network.gpu_kernel = "triton"
    image = torch.rand(1, 28, 28)
    expected = model.predict(image).label
    assert model.cuda().predict(image.cuda()).label == expected
    assert model.cpu().predict(image).label == expected
