"""Prints docs/reference.md: the help of every subcommand."""

import typer
from typer.testing import CliRunner

from plifctl.cli.app import app


def reference() -> str:
    """Returns the page."""
    run = CliRunner(env={"COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"})
    names: list[list[str]] = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        names += [[name], *([name, inner] for inner in getattr(command, "commands", ()))]
    parts = ["# Reference\n\nWritten by `make reference` from `--help`.\n"]
    for arguments in ([], *names):
        text = run.invoke(app, [*arguments, "--help"], prog_name="plifctl").output.rstrip()
        lines = "\n".join(line.rstrip() for line in text.splitlines())
        parts.append(f"## plifctl {' '.join(arguments)}".rstrip() + f"\n\n```\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference(), end="")
