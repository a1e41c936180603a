"""The decoders of .npy and .npz recordings: dtypes, units, impossible events and damaged files."""

import io
import struct
import zipfile

import numpy as np
import pytest
from raw_files import encode_npy, encode_npz

from plifctl.config.choices import TimeUnit
from plifctl.config.dataset import ReadingSpec
from plifctl.data.formats.arrays import decode_npy, decode_npz
from plifctl.data.remarks import Remark
from plifctl.errors import DamagedFileError

ROWS = ((3, 4, 1, 20), (1, 2, 0, 10), (5, 6, 1, 20))  # x, y, p, t in ms
COLUMNS = (("t", [9, 3, 9]), ("x", [1, 2, 3]), ("y", [4, 5, 6]), ("p", [1, 0, 1]))


@pytest.mark.parametrize("dtype", ["i8", "u2", ">i4", "f4", "f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_decode_npy_any_dtype_and_order_converts_ms(dtype: str, order: str) -> None:
    found = decode_npy(encode_npy(np.array(ROWS, dtype, order=order)), where="f").events
    assert found.tolist() == [(10_000, 1, 2, 0), (20_000, 3, 4, 1), (20_000, 5, 6, 1)]


def test_decode_npy_fractions_of_ms_are_rounded_to_us() -> None:
    found = decode_npy(encode_npy(np.array([(0, 0, 0, 1.5), (0, 0, 0, 2.0004)])), where="f")
    assert found.events["t"].tolist() == [1500, 2000]


def test_decode_npy_large_integer_times_are_exact() -> None:
    assert decode_npy(encode_npy(np.array([(0, 0, 0, 2**52 + 1)])), where="f").events["t"][0] == (2**52 + 1) * 1000


@pytest.mark.parametrize(("t", "hint"), [(-5.0, "times before 0"), (0.25, "time_unit: s"), (np.nan, "")])
def test_decode_npz_impossible_time_has_a_hint_that_helps(t: float, hint: str) -> None:
    columns = {name: np.array([1.0, 0.0]) for name in "xyp"} | {"t": np.array([t, 7.0])}
    with pytest.raises(DamagedFileError) as error:
        decode_npz(encode_npz(**columns), where="f")
    assert (error.value.hint == hint) if not hint else (hint in error.value.hint)


def test_decode_npy_empty_matrix_gives_no_events() -> None:
    assert len(decode_npy(encode_npy(np.empty((0, 4))), where="f").events) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (encode_npy(np.zeros((3, 4)))[:-1], "expected 224"),
        (encode_npy(np.zeros((3, 4))) + b"x", "expected 224"),
        (encode_npy(np.zeros((3, 5))), r"shape \[3, 5\]"),
        (encode_npy(np.zeros(3)), r"shape \[3\]"),
        (encode_npy(np.zeros((1, 4), "U1")), "expected numbers"),
        (encode_npy(np.zeros((1, 4), "c16")), "expected numbers"),
        (encode_npy(np.array([(0, 0, 2, 0)])), "p is 2"),
        (encode_npy(np.array([(-1, 0, 0, 0)])), "x is -1"),
        (encode_npy(np.array([(0, 0.5, 0, 0)])), "y is 0.5"),
        (encode_npy(np.array([(0, 0, 0, np.nan)])), "t is nan"),
        (encode_npy(np.array([(0, 0, 0, np.inf)])), "t is inf"),
        (encode_npy(np.array([(0, 0, 0, 2**63 - 1)])), "t is 9.2"),
        (encode_npy(np.array([(0, 0, 0, -1)])), "t is -1000"),
        (encode_npy(np.array([[None] * 4], object)), "an array of object"),
    ],
)
def test_decode_npy_damaged_file_or_impossible_event_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DamagedFileError, match=message):
        decode_npy(data, where="f")


def test_decode_npy_huge_declared_shape_is_refused() -> None:
    data = encode_npy(np.zeros((10, 4))).replace(b"(10, 4), ", b"(10**18,)")
    huge = encode_npy(np.zeros((1, 4))).replace(b"(1, 4), }    ", b"(10000000000, 4), }"[:13])
    for bad in (data, huge):
        with pytest.raises(DamagedFileError):
            decode_npy(bad, where="f")


@pytest.mark.parametrize("packed", [False, True])
def test_decode_npz_any_dtype_sorts_by_time(packed: bool) -> None:
    arrays = {name: np.array(values, {"t": ">u4", "p": bool}.get(name, "i8")) for name, values in COLUMNS}
    found = decode_npz(encode_npz(packed=packed, **arrays, more=np.zeros(2)), where="f")
    assert found.events.tolist() == [(3, 2, 5, 0), (9, 1, 4, 1), (9, 3, 6, 1)]
    assert found.dropped == 0


def test_decode_npz_empty_arrays_gives_no_events() -> None:
    assert len(decode_npz(encode_npz(**{name: np.empty(0) for name in "txyp"}), where="f").events) == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04", "expected an intact archive"),
        (encode_npz(frames=np.zeros(3)), "contains frames, expected arrays named t, x, y, p"),
        (encode_npz(t=np.zeros(3), x=np.zeros(3), y=np.zeros(3), p=np.zeros(2)), r"p \[2\]"),
        (encode_npz(**{name: np.zeros((3, 1)) for name in "txyp"}), "four of one length"),
        (encode_npz(t=np.zeros(1), x=np.array([40_000]), y=np.zeros(1), p=np.zeros(1)), "x is 40000"),
        (encode_npz(t=np.array([2**64 - 1], "u8"), x=np.zeros(1), y=np.zeros(1), p=np.zeros(1)), "t is 1844"),
        (encode_npz(**{name: np.array([{}], object) for name in "txyp"}), "an array of object"),
    ],
)
def test_decode_npz_damaged_file_or_impossible_event_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DamagedFileError, match=message):
        decode_npz(data, where="f")


def test_decode_npz_zip_of_other_files_says_what_it_contains_and_to_unpack_it() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("b/one.aedat", b"#!AER-DAT2.0\r\n")
        archive.writestr("a.csv", "1,2,3,0\n")
    with pytest.raises(
        DamagedFileError, match=r"a zip archive without arrays; it contains a\.csv, b/one\.aedat"
    ) as info:
        decode_npz(packed.getvalue(), where="f")
    assert info.value.hint == "unpack it: unzip FILE"


def test_decode_npz_decompression_bomb_is_refused() -> None:
    data = bytearray(encode_npz(packed=True, **{name: np.zeros(10) for name in "txyp"}))
    at = data.index(b"PK\x01\x02")  # the entry in the archive's directory
    data[at + 24 : at + 28] = struct.pack("<I", 2**31)
    with pytest.raises(DamagedFileError, match=r"refused, .* bytes are declared to unpack to 2147483648"):
        decode_npz(bytes(data), where="f")


def test_decode_npz_compressed_by_lzma_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        for name, column in COLUMNS:
            archive.writestr(f"{name}.npy", encode_npy(np.array(column)))
    with pytest.raises(DamagedFileError, match="compressed by method 14"):
        decode_npz(file.getvalue(), where="f")


EVENTS = np.array([(0, 3, 4, 1), (1500, 1, 2, 0)], [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
ROWS_OF_EVENTS = [(0, 3, 4, 1), (1500, 1, 2, 0)]


@pytest.mark.parametrize(("unit", "factor"), [("us", 1), ("ms", 1000), ("s", 1_000_000)])
def test_decode_npy_matrix_in_the_unit_of_the_data_set(unit: TimeUnit, factor: int) -> None:
    matrix = np.array([(3, 4, 1, 0), (1, 2, 0, 7)])
    found = decode_npy(encode_npy(matrix), where="f", reading=ReadingSpec(time_unit=unit))
    assert found.events.tolist() == [(0, 3, 4, 1), (7 * factor, 1, 2, 0)]
    assert found.remarks == ()


def test_decode_npy_matrix_without_a_unit_is_ms_and_says_so() -> None:
    found = decode_npy(encode_npy(np.array([(3, 4, 1, 0), (1, 2, 0, 7)])), where="f")
    assert found.events["t"].tolist() == [0, 7000]
    assert found.remarks == (Remark("unit", largest=7),)


@pytest.mark.parametrize("names", [("t", "x", "y", "p"), ("ts", "x", "y", "pol"), ("timestamp", "x", "y", "polarity")])
def test_decode_structured_arrays_by_the_names_of_their_fields_in_us(names: tuple[str, ...]) -> None:
    array = EVENTS.view([(name, EVENTS.dtype[field]) for name, field in zip(names, "txyp", strict=True)])
    assert decode_npy(encode_npy(array), where="f").events.tolist() == ROWS_OF_EVENTS
    assert decode_npz(encode_npz(events=array), where="f").events.tolist() == ROWS_OF_EVENTS
    columns = {name: array[name] for name in names}
    assert decode_npz(encode_npz(**columns), where="f").events.tolist() == ROWS_OF_EVENTS


def test_decode_structured_array_without_a_field_names_those_found() -> None:
    array = np.zeros(3, [("t", "i8"), ("x", "i2"), ("y", "i2"), ("sign", "u1")])
    for data, decode in ((encode_npy(array), decode_npy), (encode_npz(a=array), decode_npz)):
        with pytest.raises(DamagedFileError, match=r"with the fields t, x, y, sign, expected .* t, x, y and p"):
            decode(data, where="f")


def test_decode_npz_in_seconds_asks_for_the_unit_and_reads_by_it() -> None:
    data = encode_npz(t=np.array([0, 0.001, 0.0025], "f4"), x=np.arange(3), y=np.arange(3), p=np.array([-1, 1, -1]))
    with pytest.raises(DamagedFileError, match=r"event 1 of 3: t is 0\.001") as error:
        decode_npz(data, where="f")
    assert "time_unit: s" in error.value.hint
    assert decode_npz(data, where="f", reading=ReadingSpec(time_unit="s")).events.tolist() == [
        (0, 0, 0, 0),
        (1000, 1, 1, 1),
        (2500, 2, 2, 0),
    ]


@pytest.mark.parametrize(
    ("names", "unit", "p"),
    [("xytp", "us", (0, 1)), ("txyp", "us", (0, 1)), ("xytp", "s", (-1, 1)), ("txyp", "s", (-1, 1))],
)
def test_decode_npy_of_another_order_is_refused_with_the_keys_that_read_it(
    names: str, unit: str, p: tuple[int, int]
) -> None:
    columns = {"x": [3 * k for k in range(40)], "y": [5 * k for k in range(40)], "p": [p[k % 2] for k in range(40)]}
    columns["t"] = [1000 * k if unit == "us" else 0.001 * k for k in range(40)]  # type: ignore[misc]
    data = encode_npy(np.array([columns[name] for name in names]).T)
    with pytest.raises(DamagedFileError, match="the last of the four columns is the polarity") as error:
        decode_npy(data, where="f")
    assert f"columns: [{', '.join(names)}] and time_unit: {unit}" in error.value.hint
    reading = ReadingSpec.model_validate({"columns": list(names), "time_unit": unit})
    assert decode_npy(data, where="f", reading=reading).events.tolist() == [
        (1000 * k, 3 * k, 5 * k, k % 2) for k in range(40)
    ]


def reading(**keys: object) -> ReadingSpec:
    return ReadingSpec.model_validate(keys)


@pytest.mark.parametrize("kind", ["npy", "npz", "npz among others"])
def test_decode_matrix_of_five_columns_reads_those_that_are_stated(kind: str) -> None:
    matrix = np.array([(9, 3, 4, 0, 1), (9, 1, 2, 1500, 0)])
    keys = reading(columns=["-", "x", "y", "t", "p"])
    if kind == "npy":
        found = decode_npy(encode_npy(matrix), where="f", reading=keys)
    else:
        others = {"label": np.array(3), "name": np.array("a")} if kind == "npz among others" else {}
        found = decode_npz(encode_npz(events=matrix, **others), where="f", reading=keys)
    assert found.events.tolist() == [(0, 3, 4, 1), (1500, 1, 2, 0)]
    assert found.remarks == ()


@pytest.mark.parametrize("shape", [(3, 4), (3, 6), (15,), (3, 5, 1)])
def test_decode_matrix_of_other_columns_than_stated_is_refused(shape: tuple[int, ...]) -> None:
    keys = reading(columns=["t", "x", "y", "p", "-"])
    with pytest.raises(DamagedFileError, match=r"expected \[events, 5\]: t, x, y, p, -, as the data set's YAML states"):
        decode_npy(encode_npy(np.zeros(shape)), where="f", reading=keys)


def test_decode_npz_of_one_matrix_without_stated_columns_names_the_key() -> None:
    matrix = np.array([(k, 3 * k, 200 - k, k % 2) for k in range(9)])
    with pytest.raises(
        DamagedFileError, match=r"f: events: an array of shape \[9, 4\], expected named columns"
    ) as error:
        decode_npz(encode_npz(events=matrix), where="f")
    assert "columns: " in error.value.hint


@pytest.mark.parametrize("dtype", ["i8", "u8", "u4", "u2", "f8"])
def test_decode_times_in_ns_are_rounded_to_the_nearest_us_of_two_to_the_even(dtype: str) -> None:
    ns = np.array([0, 499, 500, 501, 1499, 1500, 2500, 2501], dtype)
    zeros = np.zeros(len(ns), int)
    found = decode_npz(encode_npz(t=ns, x=zeros, y=zeros, p=zeros), where="f", reading=reading(time_unit="ns"))
    assert found.events["t"].tolist() == [0, 0, 0, 1, 1, 2, 2, 3]


def test_decode_times_of_today_in_ns_are_exact() -> None:
    now = 1_700_000_000_123_456_789
    data = encode_npz(t=np.array([now, now + 1000]), x=np.zeros(2, int), y=np.zeros(2, int), p=np.zeros(2, int))
    found = decode_npz(data, where="f", reading=reading(time_unit="ns"))
    assert found.events["t"].tolist() == [now // 1000 + 1, now // 1000 + 2]


@pytest.mark.parametrize("names", [("Time", "X", "Y", "Polarity"), ("ts", "xs", "ys", "ps")])
def test_decode_fields_in_any_case_and_order_by_their_usual_names(names: tuple[str, ...]) -> None:
    types = [(name, "i4") for name in reversed(names)]
    array = np.array([(1, 4, 3, 0), (0, 2, 1, 1500)], types)
    assert decode_npy(encode_npy(array), where="f").events.tolist() == ROWS_OF_EVENTS


@pytest.mark.parametrize("many", [False, True])
def test_decode_fields_by_the_names_that_the_data_set_states(many: bool) -> None:
    keys = reading(fields={"t": "when", "p": "sign"})
    array = EVENTS.view([(new, EVENTS.dtype[old]) for old, new in zip("txyp", ("when", "x", "y", "sign"), strict=True)])
    others = {"label": np.zeros(1)} if many else {}
    files = [
        (decode_npy, encode_npy(array)),
        (decode_npz, encode_npz(events=array, **others)),
        (decode_npz, encode_npz(**{name: array[name] for name in array.dtype.names or ()}, **others)),
    ]
    for decode, data in files:
        assert decode(data, where="f", reading=keys).events.tolist() == ROWS_OF_EVENTS


def test_decode_fields_that_are_stated_but_missing_lists_those_found() -> None:
    with pytest.raises(DamagedFileError, match=r"no 'when', expected as t by the data set's YAML; found t, x, y, p"):
        decode_npy(encode_npy(EVENTS), where="f", reading=reading(fields={"t": "when"}))


def test_decode_fields_of_two_times_asks_which() -> None:
    array = np.zeros(3, [("t", "i8"), ("timestamp", "i8"), ("x", "i2"), ("y", "i2"), ("p", "u1")])
    with pytest.raises(DamagedFileError, match="both t and timestamp may be t") as error:
        decode_npy(encode_npy(array), where="f")
    assert "fields: {t: t}" in error.value.hint
    assert len(decode_npy(encode_npy(array), where="f", reading=reading(fields={"t": "t"})).events) == 3


def test_decode_fields_of_text_beside_the_events_are_not_read() -> None:
    array = np.zeros(3, [("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", "?"), ("camera", "U4")])
    assert len(decode_npy(encode_npy(array), where="f").events) == 3


@pytest.mark.long
def test_decode_npz_of_many_arrays_that_unpack_to_far_more_is_refused() -> None:
    data = encode_npz(packed=True, **{f"a{k}": np.zeros(2**22) for k in range(9)})
    with pytest.raises(DamagedFileError, match="refused"):
        decode_npz(data, where="f")
