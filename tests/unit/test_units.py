"""Texts as people read them: tables of Markdown."""

from plifctl.units import markdown_table


def test_markdown_table_keeps_any_text_in_its_cell() -> None:
    assert markdown_table(("name", "n"), [("a\\b|c\x1b[31m\nd", 1), ("", 22)], numeric=[1]).splitlines() == [
        "| name | n |",
        "|---|--:|",
        r"| a\\b\|c�[31m�d | 1 |",
        "|  | 22 |",
    ]
