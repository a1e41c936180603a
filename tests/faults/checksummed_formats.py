"""Formats with checksums, repacked after mutation: the content is mutated, then checksums are computed anew.

Nearly all mutated files of :mod:`faults.formats` fail their checksums; these do not, and reach the code behind.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from faults.formats import Format
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

from plifctl.cache import file as cache_file
from plifctl.runs.documents import add_checksum

_BETWEEN = b"\0=====\0"  # separates the parts of a content


def _of_zip(archive: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        return _BETWEEN.join(name.encode() + b"\n" + members.read(name) for name in members.namelist())


def _zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names may occur twice
        for part in content.split(_BETWEEN):
            name, _, data = part.partition(b"\n")
            member = zipfile.ZipInfo("x")
            member.filename = name.decode("utf-8", "replace")[:20_000]  # the constructor would cut the name at a NUL
            members.writestr(member, data)
    return file.getvalue()


def _tarred(content: bytes) -> bytes:
    """Packs a tar with correct header checksums."""
    data = bytearray(content)
    for at in range(0, len(data) - 511, tarfile.BLOCKSIZE):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    return gzip.compress(bytes(data), 1)


def _of_json(text: bytes) -> bytes:
    lines = [{key: value for key, value in json.loads(line).items() if key != "checksum"} for line in _documents(text)]
    return b"\n".join(json.dumps(line).encode() for line in lines)


def _documents(text: bytes) -> list[bytes]:
    """Returns the documents of a file: one for each line, or a single one."""
    lines = text.splitlines()
    return lines if all(line.startswith(b"{") and line.endswith(b"}") for line in lines) else [text]


def _checked_json(content: bytes) -> bytes:
    return b"".join(_with_checksum(line, json.loads, json.dumps) + b"\n" for line in content.split(b"\n"))


def _of_yaml(text: bytes) -> bytes:
    tree = yaml.safe_load(text)
    del tree["checksum"]
    return yaml.safe_dump(tree, sort_keys=False).encode()


def _checked_yaml(content: bytes) -> bytes:
    return _with_checksum(content, yaml.safe_load, yaml.safe_dump)


def _with_checksum(text: bytes, load: Callable[[bytes], Any], dump: Callable[[Any], str]) -> bytes:
    """Returns a document with a new checksum; other values stay as they are."""
    try:
        return dump(add_checksum(load(text))).encode()
    except (ValueError, TypeError, RecursionError, yaml.YAMLError):
        return text


def _of_board(board: bytes) -> bytes:
    found, at = [], 0
    while at < len(board):
        length = int.from_bytes(board[at : at + 8], "little")
        found.append(board[at + 12 : at + 12 + length])
        at += 16 + length
    assert all(Event.FromString(part) for part in found)
    return _BETWEEN.join(found)


def _board(content: bytes) -> bytes:
    file = io.BytesIO()
    writer = RecordWriter(file)
    for part in content.split(_BETWEEN):
        writer.write(part)
    return file.getvalue()


def _of_cache(cache: bytes) -> bytes:
    with h5py.File(io.BytesIO(cache)) as file:
        return json.dumps(cache_file.attributes_of(file)).encode()


def _pack_cache_attributes(cache: bytes) -> Callable[[bytes], bytes]:
    """Returns a function that writes other attributes, with a valid seal, into a cache."""

    def packed(content: bytes) -> bytes:
        try:
            attributes = json.loads(content)
        except (ValueError, RecursionError):
            return content
        copy = io.BytesIO(cache)
        with h5py.File(copy, "r+", libver=("v110", "v110")) as file:
            for name, value in attributes.items() if isinstance(attributes, dict) else ():
                text = value if isinstance(value, str) else json.dumps(value)
                try:
                    file.attrs[name] = value if isinstance(value, bool | int | float) else np.bytes_(text.encode())
                except (ValueError, OSError, OverflowError, TypeError, UnicodeError, RuntimeError):
                    continue  # not a valid name or number in HDF5
            columns = cache_file._columns(file)
            try:
                seal = cache_file._header_digest(cache_file.attributes_of(file), columns, cache_file.samples_of(file))
            except UnicodeError:
                seal = ""
            file.attrs["seal"] = np.bytes_(seal.encode())
        return copy.getvalue()

    return packed


def repacked_formats(formats: Mapping[str, Format]) -> dict[str, Format]:
    """Returns the formats that have checksums or are packed, by separate names."""
    packing: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
        **dict.fromkeys(("npz", "zip", "checkpoint", "spikes", "predictions"), (_of_zip, _zipped)),
        **dict.fromkeys(("record", "controls", "run"), (_of_json, _checked_json)),
        "tar.gz": (gzip.decompress, _tarred),
        "config": (_of_yaml, _checked_yaml),
        "board": (_of_board, _board),
        "cache": (_of_cache, _pack_cache_attributes(formats["cache"].valid)),
    }

    def repacked(name: str) -> Format:
        unpacked, packed = packing[name]
        outer = formats[name]
        return replace(outer, valid=unpacked(outer.valid), read=lambda content: outer.read(packed(content)))

    return {f"{name}, repacked": repacked(name) for name in packing}


def formats_with_repacked(place: Path) -> dict[str, Format]:
    """Returns all formats, and again those that can be repacked after mutation.

    Args:
        place: An empty folder for intermediate files.
    """
    from faults.formats import all_formats

    found = all_formats(place)
    return {**found, **repacked_formats(found)}
