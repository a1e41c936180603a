"""Machine code on disk that is damaged or outdated is compiled again."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from plifctl import jit

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


def test_compiled_after_a_change_of_another_file_compiles_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jitted", None)
    path, called = tmp_path / "jitted.py", tmp_path / "called_by_jitted.py"
    path.write_text("from called_by_jitted import inner\n" + SOURCE.replace("2 * x", "inner(x)"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # python tells versions of a file apart by the second

    def doubled(factor: int) -> int:
        called.write_text(f"from plifctl.jit import inlined\n\n@inlined\ndef inner(x):\n    return {factor} * x\n")
        jit._digest.cache_clear()  # as another process would
        monkeypatch.setitem(sys.modules, "called_by_jitted", None)
        del sys.modules["called_by_jitted"]
        importlib.invalidate_caches()
        return int(load(path).double(5))

    assert [doubled(2), doubled(3)] == [10, 15]


def test_source_files_are_also_those_of_intrinsics() -> None:
    from plifctl.snn.kernels import registers, winograd_loops

    files = jit._source_files(winograd_loops.to_products.py_func)
    assert {registers.__file__, winograd_loops.__file__} <= files
