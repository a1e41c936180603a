"""The command line: parse, call the library, print.

One file for each subcommand; nothing heavy is imported at start.
"""

from plifctl.cli.app import main, run_process

__all__ = ["main", "run_process"]
