"""Which format the ending of a file means."""

from pathlib import Path

import pytest

from plifctl.errors import UsageError
from plifctl.exchange.formats import choose_format


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_ending_of_a_format_that_has_to_be_named_hints_at_it(ending: str) -> None:
    with pytest.raises(UsageError, match=f"the ending {ending} does not say which program is to read") as refused:
        choose_format(Path(f"net{ending}"))
    assert refused.value.hint == "--to spikingjelly; for plifctl: .pt, .npz, a folder"
    assert choose_format(Path(f"net{ending}"), "spikingjelly") == "spikingjelly"


def test_unknown_ending_lists_all() -> None:
    with pytest.raises(UsageError, match="unknown ending") as refused:
        choose_format(Path("net.hdf5"))
    for ending in (".nir", ".npz", ".onnx", ".pt", ".pth (spikingjelly)", ".safetensors (spikingjelly)", "--to folder"):
        assert ending in refused.value.hint
