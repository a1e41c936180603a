"""Compiled loop over the bytes of a text of events. Imported only when one is read: numba takes a while to import."""

from __future__ import annotations

import numpy as np

from plifctl.data.events import LATEST_US
from plifctl.jit import compiled, inlined

COUNT, NUMBER, VALUE = 1, 2, 3
"""What is wrong with a line: the number of its values, a value that is no number, or one that is impossible."""

_LARGEST = np.int64(LATEST_US)
_KEPT = np.int64(92 * 10**16)  # with one more digit it has at most 63 bits
_POWERS = np.array([10**k for k in range(19)], np.int64)

_T, _P = 0, 3
_NEWLINE, _RETURN, _TAB, _BLANK = b"\n\r\t "
_COMMENT, _OTHER_COMMENT, _DOT, _MINUS, _PLUS, _ZERO, _NINE = b"#%.-+09"
_A, _E, _F, _TRUE, _Z = b"aeftz"
_LOWER = 0x20  # makes letters small


@compiled()
def parse_events(data, separator, names, power, is_rounded, columns):  # type: ignore[no-untyped-def]
    """Parses lines of numbers; empty lines, and comments, which begin with # or %, are skipped.

    A number may have a fraction and an exponent. It is exact: its digits are an integer, multiplied by a power of ten.

    Args:
        data: The lines, uint8.
        separator: Byte between two values; a blank: any number of blanks and tabs.
        names: For each value of a line 0 to 3 for t, x, y, p; −1 for a value that is not read.
        power: Power of ten that t is multiplied by.
        is_rounded: Whether t may be rounded, to the nearest or the even; if not, a fraction is impossible.
        columns: The columns t, x, y and p of any signed types, that the values are written to; one for each line.

    Returns:
        Number of events; position and kind of the first error, 0 if there is none; index of the value in its line.
    """
    at, n, size = _skip_blanks(data, 0), 0, len(data)
    values = np.empty(4, np.int64)
    while at < size:
        if data[at] == _NEWLINE:
            at = _skip_blanks(data, at + 1)
        elif data[at] == _COMMENT or data[at] == _OTHER_COMMENT:
            while at < size and data[at] != _NEWLINE:
                at += 1
        else:
            at, problem, column = _parse_line(data, at, separator, names, power, is_rounded, values)
            if problem:
                return n, at, problem, column
            columns[0][n], columns[1][n], columns[2][n], columns[3][n] = values[0], values[1], values[2], values[3]
            n += 1
    return n, 0, 0, 0


@inlined
def _parse_line(data, at, separator, names, power, is_rounded, values):  # type: ignore[no-untyped-def]
    """Parses one line into ``values``; returns the position after it or of an error, its kind, the value's index."""
    size = len(data)
    for column in range(len(names)):
        if column:
            if separator == _BLANK:
                is_next = data[at - 1] == _BLANK or data[at - 1] == _TAB
            else:
                is_next = at < size and data[at] == separator
                at = _skip_blanks(data, at + 1) if is_next else at
            if not is_next or at == size or (separator == _BLANK and data[at] == _NEWLINE):
                return at, COUNT, column
        begin, name = at, names[column]
        if name < 0:
            at = _skip_value(data, at, separator)
            continue
        digits, exponent, at = _parse_number(data, at, name == _P)
        if at == begin:
            return at, COUNT if at == size or data[at] == _NEWLINE else NUMBER, column
        if at < size and data[at] != _NEWLINE and data[at] != separator and not _is_blank(data[at]):
            return begin, NUMBER, column
        value = _scale(digits, exponent + power if name == _T else exponent, name == _T and is_rounded)
        largest = _LARGEST if name == _T else np.int64(1 if name == _P else 32767)
        if value > largest or value < (-1 if name == _P else 0):
            return begin, VALUE, column
        values[name] = value
        at = _skip_blanks(data, at)
    return at, COUNT if at < size and data[at] != _NEWLINE else 0, len(names)


@inlined
def _is_blank(byte):  # type: ignore[no-untyped-def]
    return byte in (_BLANK, _TAB, _RETURN)


@inlined
def _skip_blanks(data, at):  # type: ignore[no-untyped-def]
    while at < len(data) and _is_blank(data[at]):
        at += 1
    return at


@inlined
def _skip_value(data, at, separator):  # type: ignore[no-untyped-def]
    """Returns the position after a value that is not read, and after the blanks that follow."""
    while at < len(data) and data[at] != _NEWLINE and data[at] != separator:
        if separator == _BLANK and _is_blank(data[at]):
            break
        at += 1
    return _skip_blanks(data, at)


@inlined
def _parse_number(data, at, is_boolean):  # type: ignore[no-untyped-def]
    """Parses one number, or ``true`` or ``false`` in any case if allowed.

    Returns:
        Its digits as an integer, the power of ten that it is multiplied by, and the position after it; that of its
        beginning if there is no number.
    """
    begin, size = at, len(data)
    if is_boolean and at < size and (data[at] | _LOWER == _TRUE or data[at] | _LOWER == _F):
        is_true = data[at] | _LOWER == _TRUE
        while at < size and _A <= data[at] | _LOWER <= _Z:
            at += 1
        return np.int64(is_true), 0, at if at - begin == (4 if is_true else 5) else begin
    is_negative = at < size and data[at] == _MINUS
    if is_negative or (at < size and data[at] == _PLUS):
        at += 1
    digits, exponent, n_digits, is_fraction, is_inexact = np.int64(0), np.int64(0), 0, False, False
    while at < size:
        digit = np.int64(data[at]) - _ZERO
        if 0 <= digit <= 9:
            n_digits += 1
            if digits < _KEPT:
                digits = digits * 10 + digit
                exponent -= is_fraction
            else:  # more than 64 bits hold
                is_inexact = is_inexact or digit != 0
                exponent += not is_fraction
        elif data[at] == _DOT and not is_fraction:
            is_fraction = True
        else:
            break
        at += 1
    if not n_digits:
        return np.int64(0), 0, begin
    digits = digits | 1 if is_inexact else digits  # not equally near to two numbers
    if at < size and data[at] | _LOWER == _E:
        power, is_small, end = np.int64(0), False, at + 1
        if end < size and (data[end] == _MINUS or data[end] == _PLUS):
            is_small = data[end] == _MINUS
            end += 1
        first = end
        while end < size and _ZERO <= data[end] <= _NINE:
            power = power * 10 + np.int64(data[end]) - _ZERO if power < 1000 else power
            end += 1
        if end == first:
            return np.int64(0), 0, begin
        exponent, at = exponent - power if is_small else exponent + power, end
    return -digits if is_negative else digits, exponent, at


@inlined
def _scale(digits, exponent, is_rounded):  # type: ignore[no-untyped-def]
    """Returns digits times a power of ten; −2⁶² if that is too large, or has a fraction and must not be rounded."""
    if digits == 0:
        return np.int64(0)
    if exponent >= 0:
        if exponent > 18 or abs(digits) > _LARGEST // _POWERS[exponent]:
            return -_LARGEST
        return digits * _POWERS[exponent]
    if exponent < -18:  # less than 1: digits have at most 63 bits
        nearest = np.int64(0 if exponent < -19 or abs(digits) <= 5 * _POWERS[18] else 1 if digits > 0 else -1)
        return nearest if is_rounded else -_LARGEST
    divisor = _POWERS[-exponent]
    whole, rest = divmod(digits, divisor)
    if rest == 0:
        return whole
    if not is_rounded:
        return -_LARGEST
    # of two equally near numbers the even
    return whole + (rest > divisor - rest or (rest == divisor - rest and whole % 2 == 1))
