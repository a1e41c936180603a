"""Weights of other programs are named as such; damaged files of plifctl are not taken for them."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from plifctl.errors import CheckpointError
from plifctl.runs.checkpoints import load_checkpoint

WEIGHTS = OrderedDict({"0.weight": torch.zeros(2, 3), "1.weight": torch.zeros(4)})


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (WEIGHTS, r"weights of another program: a state dict without its experiment \(0.weight, 1.weight\)"),
        ({"model": WEIGHTS, "epoch": 7, "max_test_acc": 0.5}, "another program: it has model, epoch, max_test_acc"),
        (nn.Sequential(nn.Linear(2, 2)), r"pickled by another program \(torch.nn.modules.container.Sequential\)"),
        (torch.zeros(3), "a tensor, not a checkpoint"),
        ({"w" * 10_000: torch.zeros(1)}, r"without its experiment \(w{199}…\)$"),
    ],
)
def test_load_checkpoint_of_another_program_names_it(tmp_path: Path, saved: Any, message: str) -> None:
    torch.save(saved, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(tmp_path / "a.pt")
    assert "damaged" not in str(error.value)
    assert error.value.hint.splitlines()[-1].startswith("plifctl convert ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"a": 1}), "a pickle of another program"),
        ((2).to_bytes(8, "little") + b"{}" + b"\0" * 8, r"weights of another program \(safetensors\)"),
    ],
)
def test_load_checkpoint_that_is_no_archive_names_it(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "a.pt")


def test_load_checkpoint_cut_off_or_changed_is_damaged_whoever_saved_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"digest": "d", "model": WEIGHTS}, path)
    with pytest.raises(CheckpointError, match="damaged, or not a checkpoint of plifctl: it has no 'spec'"):
        load_checkpoint(path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged, or not a checkpoint of plifctl"):
            load_checkpoint(path)


def test_load_checkpoint_of_another_program_executes_nothing(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"model": Payload()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="pickled by another program"):
        load_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "executed").exists()


def test_load_checkpoint_of_real_programs_names_them(shared: Path) -> None:
    folder = shared / "data/field/foreign-checkpoints"
    if not folder.is_dir():
        pytest.skip("no checkpoints of other programs here")
    for path in sorted(folder.iterdir()):
        with pytest.raises(CheckpointError, match="another program"):
            load_checkpoint(path)


def test_zip_of_several_disks_is_damaged(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("x", "x")
    content = archive.getvalue()
    end = content.rindex(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 1, 0, 2)  # "1 of 2 disks", where zip64 states it
    (tmp_path / "a.pt").write_bytes(content[:end] + locator + content[end:])
    with pytest.raises(CheckpointError, match=r"a\.pt: damaged"):
        load_checkpoint(tmp_path / "a.pt")
