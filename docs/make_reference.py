"""Prints docs/reference.md, the help texts of all commands: ``make reference`` writes the file."""

import typer
from typer.testing import CliRunner

from plifctl.cli.app import app

_INTRODUCTION = """# Reference

The help texts of all commands, written by `make reference` from `--help`. The [guide](guide.md) shows how to use them.
"""


def reference() -> str:
    """Returns the text of the page."""
    runner = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"})
    commands: list[list[str]] = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        commands += [[name], *([name, inner] for inner in getattr(command, "commands", ()))]
    parts = [_INTRODUCTION]
    for words in ([], *commands):
        text = runner.invoke(app, [*words, "--help"], prog_name="plifctl").output.rstrip()
        lines = "\n".join(line.rstrip() for line in text.splitlines())
        parts.append(f"## {' '.join(['plifctl', *words])}\n\n```text\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
