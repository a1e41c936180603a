"""The python batches of CIFAR-10: pickled dictionaries, read by an interpreter that creates plain values only.

A pickle is a program. Python's own interpreter calls whatever functions the file names; even a pickle without names
can overflow the stack (by hashing a nested tuple) or allocate gigabytes (by the number of a memo). A batch needs two
dozen instructions; this module runs those and refuses all others.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from plifctl.data.formats.headers import describe_content
from plifctl.errors import DamagedFileError

_PIXELS = (3, 32, 32)
_MAX_INSTRUCTIONS = 1_000_000  # a batch of 10,000 images has under 100,000


def decode_cifar_batch(data: bytes, *, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Decodes one batch.

    Args:
        data: The file.
        where: Its name, for messages.

    Returns:
        Images uint8 ``[n, 3, 32, 32]`` (red, green, blue) and labels int64 ``[n]``, 0 to 9.

    Raises:
        DamagedFileError: The file is not such a batch, or its pickle needs anything but arrays of bytes.

    Source: the layout of the python version, described on the page of CIFAR-10.
    """
    try:
        batch = _PickleInterpreter(data).run()
    except _UnsafePickle as error:
        raise DamagedFileError(
            f"{where}: refused: its pickle uses {error}, which a CIFAR-10 batch does not need"
        ) from None
    except Exception as error:  # a damaged program can fail at any instruction, in any way
        raise DamagedFileError(f"{where}: {describe_content(data)}, expected a CIFAR-10 batch: {error}") from error
    pixels, labels = (batch.get(key) for key in (b"data", b"labels")) if isinstance(batch, dict) else (None, None)
    pixels = pixels.values if isinstance(pixels, _Array) else pixels
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise DamagedFileError(f"{where}: not a CIFAR-10 batch: data is {_describe(pixels)}, expected uint8 [n, 3072]")
    if (
        not isinstance(labels, list)
        or len(labels) != len(pixels)
        or not all(type(label) is int and 0 <= label <= 9 for label in labels)
    ):
        raise DamagedFileError(f"{where}: not a CIFAR-10 batch: labels are not {len(pixels)} integers from 0 to 9")
    return pixels.reshape(-1, *_PIXELS), np.array(labels, np.int64)


class _UnsafePickle(Exception):
    pass


class _Mark:
    """Marks on the stack where the items of a tuple, a list or a dictionary begin."""


class _Bytes:
    """The dtype of bytes, the only one that arrays may have."""


@dataclass(frozen=True)
class _Name:
    """A module and a name in it; nothing is imported."""

    text: str


@dataclass
class _Array:
    """An array: created empty, filled in by the next instruction."""

    values: np.ndarray | None = None


class _PickleInterpreter:
    """Runs the instructions of a pickle of numbers, strings, arrays of bytes, and lists and dictionaries of them.

    Text is kept as bytes, so that the batches of Python 2 and copies written by Python 3 have the same keys.
    """

    _PLAIN = frozenset({"BININT", "BININT1", "BININT2", "LONG1", "BINBYTES", "SHORT_BINBYTES"})
    _TEXT = frozenset({"BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"})
    _CONSTANTS: ClassVar[dict[str, Any]] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "MARK": _Mark}
    _EMPTY: ClassVar[dict[str, type]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
    _TUPLES: ClassVar[dict[str, int]] = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
    _RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
    _NAMES = frozenset({*_RECONSTRUCT, "numpy ndarray", "numpy dtype", "_codecs encode"})

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._copied = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Returns the value that the program leaves on the stack."""
        for count, (instruction, argument, _) in enumerate(pickletools.genops(self._data)):
            if count >= _MAX_INSTRUCTIONS:
                raise _UnsafePickle(f"more than {_MAX_INSTRUCTIONS:,} instructions")
            self._step(instruction.name, argument)
        return self._stack.pop()

    def _step(self, name: str, argument: Any) -> None:
        stack, memo = self._stack, self._memo
        if name in self._PLAIN:
            stack.append(argument)
        elif name in self._TEXT:
            stack.append(argument.encode("latin1" if "STRING" in name else "utf-8"))
        elif name in self._CONSTANTS:
            stack.append(self._CONSTANTS[name])
        elif name in self._EMPTY:
            stack.append(self._EMPTY[name]())
        elif name in self._TUPLES:
            size = self._TUPLES[name]
            stack[-size:] = [tuple(stack[-size:])]
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self._pop_to_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._pop_to_mark()
            if not all(isinstance(key, bytes) for key in items[::2]):
                raise _UnsafePickle("a key that is not text")
            self._top(dict).update(zip(items[::2], items[1::2], strict=True))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "GLOBAL":
            stack.append(self._allowed_name(argument))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [self._allowed_name(b" ".join(stack[-2:]).decode())]
        elif name == "REDUCE":
            called, arguments = stack[-2:]
            stack[-2:] = [self._call(called.text, arguments)]
        elif name == "BUILD":
            state = stack.pop()
            self._fill(stack[-1], state)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise _UnsafePickle(f"the instruction {name}")

    def _allowed_name(self, text: str) -> _Name:
        if text not in self._NAMES:  # refused here: a program may join names of any length, any number of times
            raise _UnsafePickle(text.replace(" ", ".")[:80])
        return _Name(text)

    def _pop_to_mark(self) -> list[Any]:
        stack = self._stack
        mark = next(at for at in reversed(range(len(stack))) if stack[at] is _Mark)
        items = stack[mark + 1 :]
        del stack[mark:]
        return items

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise ValueError(f"items added to a {type(self._stack[-1]).__name__}")
        return self._stack[-1]

    def _call(self, name: str, arguments: Any) -> Any:
        if name in self._RECONSTRUCT:
            return _Array()
        if name == "numpy dtype":
            if arguments[0] != b"u1":
                raise _UnsafePickle("an array of another type than bytes")
            return _Bytes()
        if name == "_codecs encode":  # how Python 3 writes bytes for Python 2
            text = arguments[0].decode()
            self._copied += len(text)
            if arguments[1] != b"latin1" or self._copied > len(self._data):
                raise _UnsafePickle("text in another encoding, or more of it than the file has")
            return text.encode("latin1")
        raise _UnsafePickle(name.replace(" ", "."))

    def _fill(self, target: Any, state: Any) -> None:
        if isinstance(target, _Bytes):
            return  # byte order, fields and alignment: bytes have none
        if not isinstance(target, _Array):
            raise _UnsafePickle(f"a state for {type(target).__name__}")
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Bytes) or not isinstance(raw, bytes):
            raise _UnsafePickle("an array of another type than bytes")
        target.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _describe(value: Any) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
