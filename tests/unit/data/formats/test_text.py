"""The decoder of texts: headers, separators, numbers, and what is refused."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plifctl.config.dataset import ReadingSpec
from plifctl.data.formats.detect import decode_any
from plifctl.data.formats.headers import is_text
from plifctl.data.formats.text import decode_text
from plifctl.errors import DamagedFileError

EVENTS = [(0, 3, 4, 1), (1500, 1, 2, 0)]


def reading(**keys: object) -> ReadingSpec:
    return ReadingSpec.model_validate(keys)


RPG = reading(columns=["t", "x", "y", "p"], time_unit="s")
METAVISION = reading(columns=["x", "y", "p", "t"])


@pytest.mark.parametrize(
    "text",
    [
        "t,x,y,p\n0,3,4,1\n1500,1,2,0\n",
        "x,y,p,t\r\n3,4,1,0\r\n1,2,0,1500\r\n",
        "Timestamp;Polarity;X;Y\n0;1;3;4\n1500;0;1;2",
        "t\tx\ty\tp\n0\t3\t4\t1\n1500\t1\t2\t0\n",
        "  t  x  y  p\n  0  3  4  1\n 1500  1  2  0  \n\n",
        "# t x y p\n0.000e+00 3.0e+00 4.0e+00 1.0e+00\n1.5e+03 1.0e+00 2.0e+00 0.0e+00\n",
        "%t,x,y,p\n0,3,4,1\n1500,1,2,0\n",
        "# made by a camera\n# x y t p\n3 4 0 1\n# in between\n\n1 2 1500 -1\n",
        '"t", "x", "y", "p"\n0 , 3 , 4 , 1\n1500, 1, 2, 0\n',
        "x,y,p,t,label\n3,4,1,0,a cup\n1,2,0,1500,\n",
        "t,x,y,p,,,,\n0,3,4,1,,,,\n1500,1,2,0,,,,\n",
        "346 260\nt x y p\n0 3 4 1\n1500 1 2 0\n",
        "x,y,t,p\n3,4,0,True\n1,2,1500,False\n",
        "t,x@240,y@180,on\n0,3,4,1\n1500,1,2,0\n",
        "t,x,y,p\n+0,03,4.,1\n1.5E3,1,2.0,-1\n",
    ],
)
def test_decode_text_with_a_header_reads_its_columns(text: str) -> None:
    for data in (text.encode(), codecs.BOM_UTF8 + text.encode()):
        assert is_text(data)
        found = decode_any(data, where="f", invalid="drop")
        assert found.events.tolist() == EVENTS
        assert found.dropped == 0


@pytest.mark.parametrize("unread", ["", ",", ",,,,,,,", ";;"])
def test_decode_text_of_the_shortest_lines_has_every_event(unread: str) -> None:
    mark = ";" if ";" in unread else ","
    lines = 10_000 * (mark.join("0001") + unread + "\n")
    found = decode_text((mark.join("txyp") + unread + "\n" + lines).encode(), where="f")
    assert found.events.tolist() == 10_000 * [(0, 0, 0, 1)]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("0.000000 3 4 1\n0.001500 1 2 0\n", RPG),
        ("240 180\n0.000000 3 4 1\n0.001500 1 2 0\n", RPG),
        ("3,4,1,0\n1,2,0,1500\n", METAVISION),
        ("0 3 4 1 9\n1.5 1 2 0 9\n", reading(columns=["t", "x", "y", "p", "-"], time_unit="ms")),
        ("cam;0;3;4;1\n;1500000;1;2;0\n", reading(columns=["-", "t", "x", "y", "p"], time_unit="ns")),
        ("a,b,c,d\n0,3,4,1\n1500,1,2,0\n", reading(columns=["t", "x", "y", "p"])),
        ("when,x,y,sign\n0,3,4,1\n1500,1,2,0\n", reading(fields={"t": "when", "p": "sign"})),
        ("# when x y sign\n0 3 4 1\n1500 1 2 0\n", reading(fields={"t": "when", "p": "sign"})),
    ],
)
def test_decode_text_by_the_keys_of_the_data_set(text: str, keys: ReadingSpec) -> None:
    assert decode_text(text.encode(), where="f", reading=keys).events.tolist() == EVENTS


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("t,x,y,p\n", reading()),
        ("# t x y p\n", reading()),
        ("# nothing\n", METAVISION),
        ("# timestamp x y polarity (240x180)\n", RPG),
        ("# time t x y p are the columns\n", RPG),
        ("\n", RPG),
    ],
)
def test_decode_text_without_lines_of_events_gives_none(text: str, keys: ReadingSpec) -> None:
    assert len(decode_text(text.encode(), where="f", reading=keys).events) == 0


@pytest.mark.parametrize(
    ("text", "order", "unit"),
    [
        ("0.000000 0 0 0\n0.001000 3 5 1\n0.002000 6 9 0\n", "t, x, y, p", "s"),
        ("0,0,0,0\n3,5,1,1000\n6,9,0,2000\n", "x, y, p, t", "us"),
        ("240 180\n0.001 3 5 -1\n0.002 1 9 1\n", "t, x, y, p", "s"),
        ("7;3;5;1000;1\n7;1;9;2000;0\n7;2;3;3000;0\n", "x, y, -, t, p", "us"),
    ],
)
def test_decode_text_without_header_and_order_shows_the_best_guess(text: str, order: str, unit: str) -> None:
    first = text.splitlines()[0]
    with pytest.raises(DamagedFileError, match=f"f: a text file that begins with '{first}', without a header") as error:
        decode_text(text.encode(), where="f")
    if order != "x, y, -, t, p":  # a constant column may as well be a coordinate
        assert f"columns: [{order}] and time_unit: {unit}" in error.value.hint
        keys = reading(columns=order.split(", "), time_unit=unit)
        assert len(decode_text(text.encode(), where="f", reading=keys).events) >= 2


@pytest.mark.parametrize(
    ("text", "keys", "message"),
    [
        ("these are recordings of cups\nof all sizes", reading(), "a header with .* found these, are, recordings, of"),
        ("# only words\n", reading(), "without a header"),
        ("t,x,y,p\n1,2,3,1\n4,5,6\n", reading(), r"f, line 3: '4,5,6': 3 values, expected 4: t, x, y, p$"),
        ("t,x,y,p\n1,2,3,1\n4,5,", reading(), "line 3: '4,5,': 2 values, expected 4: t, x, y, p; the file is cut off"),
        ("t,x,y,p\n1,2,3,1,5\n", reading(), "line 2: .*: more than 4 values, expected 4"),
        ("1 2 3 1 \n4 5 6 \n", RPG, "line 2: .*: 3 values, expected 4"),
        ("1 2 3 1 \n", reading(columns=["t", "x", "y", "p", "-"]), "4 values, expected 5"),
        ("t,x,y,p\n\n# c\n1,2,3,1\n1,2,three,1\n", reading(), "line 5: '1,2,three,1': y is 'three', expected a number"),
        ("t,x,y,p\n1,2,3,nan\n", reading(), "p is 'nan', expected a number"),
        ("t;x;y;p\n0,1;2;3;1\n", reading(), "t is '0', expected a number"),
        ("t,x,y,p\n1,2,3,2\n", reading(), "p is 2, expected 0, 1 or -1"),
        ("t,x,y,p\n1,-2,3,1\n", reading(), "x is -2, expected a whole number from 0 to 32767"),
        ("t,x,y,p\n1,2,32768,1\n", reading(), "y is 32768, expected"),
        ("t,x,y,p\n1,2.5,3,1\n", reading(), "x is 2.5, expected a whole number"),
        ("t,x,y,p\n0.001,2,3,1\n", reading(), "t is 0.001, expected a whole number"),
        ("t,x,y,p\n-1,2,3,1\n", reading(time_unit="s"), "t is -1, expected"),
        ("t,x,y,p\n99999999999999999999,2,3,1\n", reading(), "t is 9999.*, expected"),
        ("t,x,y,p\n1e999999999999,2,3,1\n", reading(), "t is 1e999999999999, expected"),
        ("t,x,y,p\n1,2,3,Trueish\n", reading(), "p is 'Trueish', expected a number"),
        ("t,x,y,p\n1,2,3,-1\n1,2,3,0\n", reading(), "p is -1, expected a whole number from 0 to 1"),
        ("t,x,y,p\n900000,2,3,1\n0,2,3,1\n", reading(), "the clock started again"),
        ("t,time,x,y,p\n1,1,2,3,1\n", reading(), "both t and time may be t"),
        ("t,x,y,p\n1,2,3,1\n", reading(fields={"t": "when"}), "no 'when', expected as t"),
        ("t,x,y,p\n1,2,3,1\n", METAVISION, r"names the columns t, x, y, p, the data set's YAML says x, y, p, t"),
    ],
)  # fmt: skip
def test_decode_text_that_cannot_be_read_is_refused_with_the_line(text: str, keys: ReadingSpec, message: str) -> None:
    with pytest.raises(DamagedFileError, match=message):
        decode_text(text.encode(), where="f", reading=keys)


def test_decode_text_of_times_with_fractions_asks_for_the_unit() -> None:
    with pytest.raises(DamagedFileError) as error:
        decode_text(b"t,x,y,p\n0.001,2,3,1\n", where="f")
    assert "time_unit: s" in error.value.hint


@pytest.mark.parametrize(
    ("written", "unit", "us"),
    [
        ("1468939993.067416", "s", 1468939993067416),
        ("0.0000005", "s", 0),
        ("0.0000015", "s", 2),
        ("0.00000150000000000000000000001", "s", 2),
        ("0.00000050000000000000000000001", "s", 1),
        ("1700000000123456789", "ns", 1700000000123457),
        ("1.700000000123456789e18", "ns", 1700000000123457),
        ("1.234567890123456789", "s", 1234568),
        ("4611686018427387904", "us", 2**62),
        ("12e-1", "ms", 1200),
        ("0000000000000000000000000000000007", "us", 7),
        ("7.000000000000000000000000000", "us", 7),
        ("5e-300", "s", 0),
        ("0.9000000000000000000e-6", "s", 1),
    ],
)
def test_decode_text_times_are_exact_and_rounded_to_the_nearest_us(written: str, unit: str, us: int) -> None:
    data = f"t,x,y,p\n{written},1,2,1\n".encode()
    assert decode_text(data, where="f", reading=reading(time_unit=unit)).events["t"].tolist() == [us]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*(st.integers(0, end) for end in (10**5, 32767, 32767, 1))), max_size=9), st.data())
def test_decode_text_equals_numpy(rows: list[tuple[int, ...]], data: st.DataObject) -> None:
    rows.sort(key=lambda row: row[0])
    order = data.draw(st.permutations("txyp"))
    separator = data.draw(st.sampled_from([",", ";", "\t", " ", "  ", " , "]))
    formats = data.draw(st.sampled_from(["%d", "%.18e", "%g", "%.3f"]))
    columns = [list("txyp").index(name) for name in order]
    lines = [separator.join(formats % row[k] for k in columns) for row in rows]
    if formats == "%g":  # six digits
        rows = [(int(float(f"{row[0]:g}")), *row[1:]) for row in rows]
    text = "\n".join([separator.join(order), *lines])
    assert decode_text(text.encode(), where="f").events.tolist() == rows


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n# end"])
def test_decode_text_last_line_may_end_in_any_way(end: bytes) -> None:
    assert decode_text(b"t,x,y,p\n0,3,4,1\n1500,1,2,0" + end, where="f").events.tolist() == EVENTS


@pytest.mark.slow
def test_decode_text_allocates_in_proportion_to_the_lines() -> None:
    import tracemalloc

    data = b"t,x,y,p\n" + b"\n" * 10**6
    tracemalloc.start()
    assert len(decode_text(data, where="f").events) == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(data)


@pytest.mark.parametrize("data", [b"\x00", b"abc\x00", b"\xff\xfea\x00", b"caf\xe9 1 2 3", b""])
def test_bytes_that_are_no_text_are_not_taken_for_it(data: bytes) -> None:
    assert not is_text(data)


def test_text_cut_within_a_character_by_the_prefix_is_text() -> None:
    for shift in range(3):
        assert is_text(b"#" + b" " * shift + "µ".encode() * 4000)


@pytest.mark.parametrize("line", ["0,003811;96;133;0", "0,003811\t96\t133\t0"])
@pytest.mark.parametrize("header", ["t;x;y;p\n", ""])
def test_decode_text_with_decimal_commas_says_what_is_wrong(line: str, header: str) -> None:
    text = header.replace(";", "\t" if "\t" in line else ";") + 3 * f"{line}\n"
    with pytest.raises(DamagedFileError) as error:
        decode_text(text.encode(), where="f", reading=RPG)
    assert "write them with points" in error.value.hint
