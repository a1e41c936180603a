"""Durations, sizes, accuracies, settings, letters and tables as people read them: one form everywhere."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def format_duration(seconds: float) -> str:
    """Returns a duration: below 90 s with three digits, else in its two largest units.

    Example:
        >>> format_duration(0.0123), format_duration(42), format_duration(200)
        ('12.3 ms', '42 s', '3 min')
        >>> format_duration(7500), format_duration(200_000), format_duration(9e7)
        ('2 h 5 min', '2 d 7 h', '1,041 d 16 h')
    """
    if 0 < seconds < 0.9995:  # what rounds to a second is one
        return f"{1000 * seconds:.3g} ms"
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.3g} s"
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24:,} d {hours % 24} h"


def format_age(seconds: float) -> str:
    """Returns a duration in its largest unit.

    Example:
        >>> format_age(200), format_age(7300), format_age(450_000)
        ('3 min', '2 h', '5 d')
    """
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def format_bytes(nbytes: float) -> str:
    """Returns a size in decimal units.

    Example:
        >>> format_bytes(40), format_bytes(5e5), format_bytes(2e8), format_bytes(3.4e12)
        ('40 bytes', '500.0 kB', '200.0 MB', '3,400.0 GB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:,.1f} {unit}"
    return f"{nbytes:.0f} bytes"


def format_setting(value: object) -> str:
    """Returns the value of a setting for a table.

    Example:
        >>> format_setting(True), format_setting(None), format_setting(0.5)
        ('yes', '', '0.5')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def format_accuracy(fraction: float | None, of: str | None) -> str:
    """Returns an accuracy in percent; empty for None.

    Args:
        fraction: The accuracy.
        of: The samples that it was measured on; an accuracy on ``validation`` samples is marked.

    Example:
        >>> format_accuracy(0.72, "test"), format_accuracy(0.95, "validation"), format_accuracy(None, None)
        ('72.00', '95.00 val', '')
    """
    mark = " val" if of == "validation" else ""
    return "" if fraction is None else f"{100 * fraction:.2f}{mark}"


def letters(index: int) -> str:
    """Returns the letters of a panel, note or column: a to z, then aa, ab and so on.

    Args:
        index: Its place, from 0.

    Example:
        >>> [letters(index) for index in (0, 25, 26, 27)]
        ['a', 'z', 'aa', 'ab']
    """
    return (letters(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def plain(text: str) -> str:
    r"""Returns a text without control characters, which a terminal would interpret.

    Example:
        >>> plain("a\x1b[31m, b\n")
        'a�[31m, b�'
    """
    return "".join(character if character.isprintable() else "�" for character in text)


def markdown_text(text: str) -> str:
    r"""Returns a text that Markdown shows as it is in the cell of a table: without control characters, ``|`` escaped.

    Example:
        >>> print(markdown_text("a|b"))
        a\|b
    """
    return plain(text).replace("\\", "\\\\").replace("|", "\\|")


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]], numeric: Collection[int] = ()) -> str:
    """Returns a table in Markdown.

    Args:
        heads: The head of each column.
        rows: The cells of each row, any text.
        numeric: Columns that are aligned to the right, from 0.
    """
    rule = "|" + "|".join("--:" if column in numeric else "---" for column in range(len(heads))) + "|"
    first, *others = (f"| {' | '.join(markdown_text(str(cell)) for cell in cells)} |" for cells in (heads, *rows))
    return "\n".join([first, rule, *others])
