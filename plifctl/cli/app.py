"""The app: subcommands, exit codes, signals."""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType

import typer

from plifctl import __version__, console
from plifctl.cli import check, evaluate, ls, prepare, report, show, synthesize, train
from plifctl.errors import Interrupted, MachineError, PlifctlError, from_os_error

app = typer.Typer(
    name="plifctl",
    help="Spiking networks with learnable membrane time constants: from raw recordings to the paper's tables.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: plifctl ls · plifctl show fashion-mnist-plif · plifctl prepare fashion-mnist",
)
for module in (prepare, train, evaluate, report, ls, show, check, synthesize):
    module.register(app)


@app.callback()
def _options(
    _version: bool = typer.Option(
        False,
        "--version",
        help="Show the version and exit.",
        is_eager=True,
        callback=lambda value: _show_version(value),
    ),
) -> None:
    """Options of every subcommand."""


def _show_version(wanted: bool) -> None:
    if wanted:
        console.emit(f"plifctl {__version__}")
        raise typer.Exit


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise Interrupted(signum, f"stopped by {signal.Signals(signum).name}; nothing half-made was left")


def main() -> None:
    """Runs the command line; every error becomes an exit code (see plifctl.errors)."""
    console.listen()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _interrupt)
    try:
        app()
    except PlifctlError as error:
        console.fail(error)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(0)  # the reader of our output has seen enough
    except OSError as error:
        refusal = from_os_error(error) or MachineError(
            f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        )
        console.fail(refusal)
        sys.exit(refusal.exit_code)
    except Exception:
        traceback.print_exc()
        console.note("this is a bug of plifctl, not of yours")
        sys.exit(PlifctlError.exit_code)
