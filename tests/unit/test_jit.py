"""Machine code on disk that is damaged is compiled again."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = """
from plifctl.jit import compiled

@compiled()
def double(x):
    return 2 * x
"""


def load(path: Path) -> ModuleType:
    """Loads the module again, as another process would."""
    spec = importlib.util.spec_from_file_location("jitted", path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules["jitted"] = module = importlib.util.module_from_spec(spec)  # numba looks the module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("content", [b"", b"\x80\x04cut", b"\0" * 100])
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_compiled_with_a_damaged_cache_compiles_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, content: bytes
) -> None:
    monkeypatch.setitem(sys.modules, "jitted", None)
    path = tmp_path / "jitted.py"
    path.write_text(SOURCE)
    assert load(path).double(3) == 6
    files = list((tmp_path / "__pycache__").glob(f"*.{kind}"))
    assert files
    for file in files:
        file.write_bytes(content)
    assert load(path).double(4) == 8
    again = load(path)
    assert again.double(5) == 10
    assert sum(again.double.stats.cache_hits.values()) == 1  # what was compiled again was saved
