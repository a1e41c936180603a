"""The app: subcommands, exit codes, signals."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable
from functools import lru_cache
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from plifctl import __version__
from plifctl.cli import (
    cache,
    check,
    console,
    convert,
    data,
    doctor,
    evaluate,
    export,
    ls,
    new,
    predict,
    prepare,
    report,
    runs,
    serve,
    show,
    show_sample,
    sweep,
    synthesize,
    train,
    watch,
)
from plifctl.errors import Interrupted, MachineError, OutOfMemoryError, PlifctlError, UsageError, from_os_error
from plifctl.training.process import defer_collection, is_out_of_memory, stop_signals

_EVERYWHERE = ("-q", "--quiet", "-v", "--verbose")


class _OptionsAnywhere(TyperGroup):
    """Takes the options of every subcommand after the subcommand, too, up to ``--``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        first = [word for word in args[:end] if word in _EVERYWHERE]
        others = [word for word in args[:end] if word not in _EVERYWHERE]
        return list(super().parse_args(ctx, [*first, *others, *args[end:]]))


app = typer.Typer(
    name="plifctl",
    cls=_OptionsAnywhere,
    help="Spiking networks with learnable membrane time constants: from raw recordings to the paper's tables.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: plifctl ls · plifctl show fashion-mnist-plif · plifctl prepare fashion-mnist",
)
_SUBCOMMANDS: dict[str, Callable[..., None] | typer.Typer] = {
    "prepare": prepare.prepare,
    "train": train.train,
    "validate": train.validate,
    "refit": train.refit,
    "watch": watch.watch,
    "eval": evaluate.evaluate,
    "predict": predict.predict,
    "export": export.export,
    "convert": convert.convert,
    "report": report.report,
    "serve": serve.serve,
    "ls": ls.ls,
    "show": show.show,
    "new": new.new,
    "check": check.check,
    "show-sample": show_sample.show_sample,
    "doctor": doctor.doctor,
    "synthesize": synthesize.synthesize,
    "data": data.group,
    "cache": cache.group,
    "sweep": sweep.group,
    "runs": runs.group,
}
"""Subcommands and groups of them, in the order of ``plifctl --help``, which lists groups last."""

_SyntaxError: Any = typer.BadParameter.__mro__[1]
"""The UsageError of click, of which newer versions of typer have a copy of their own."""

for name, command in _SUBCOMMANDS.items():
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name)
    else:
        app.command(name)(command)


@app.callback()
def _options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show results, warnings and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show where an error was raised.")] = False,
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            is_eager=True,
            callback=lambda value: _show_version(value),
        ),
    ] = False,
) -> None:
    """Options of every subcommand, before or after it."""
    console.set_verbosity(quiet=quiet, verbose=verbose)


def _show_version(wanted: bool) -> None:
    if wanted:
        console.emit(f"plifctl {__version__}")
        raise typer.Exit


def _interrupt(signum: int, frame: FrameType | None) -> None:
    console.stop(Interrupted(signum, f"stopped by {signal.Signals(signum).name}"))


def _unraisable(lost: sys.UnraisableHookArgs) -> None:
    """Hides the exception of a signal that arrived during clean-up; it is raised again later (console.stop)."""
    if not isinstance(lost.exc_value, Interrupted):
        sys.__unraisablehook__(lost)


@lru_cache(maxsize=1)
def _build_command() -> Any:
    """Returns the command line; typer reads the options of every subcommand, for which a second call need not wait."""
    return typer.main.get_command(app)


def _parse_and_run() -> int:
    """Runs the command that sys.argv names and returns its exit code; errors of click become UsageError."""
    try:
        code = _build_command()(prog_name="plifctl", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except typer.Abort:
        raise UsageError("not confirmed; nothing was removed", hint="add --yes") from None
    except _SyntaxError as error:
        if error.ctx is None or error.message == error.ctx.get_help():  # a command without arguments shows its help
            error.show()
            return int(error.exit_code)
        text = error.format_message().rstrip(".")
        words = {word for parameter in error.ctx.command.params for word in parameter.opts}
        by_json = "use --json\n" if getattr(error, "option_name", "") == "--format" and "--json" in words else ""
        hint = f"{by_json}{error.ctx.command_path} --help"
        raise UsageError(text[:1].lower() + text[1:], hint=hint) from None


def run_process() -> None:
    """Runs the command line in a process of its own: ``plifctl``, ``python -m plifctl``."""
    defer_collection()
    main()


def main() -> None:
    """Runs the command line; every error becomes an exit code (see plifctl.errors)."""
    console.start(json_wanted="--json" in sys.argv)
    for signum in stop_signals():
        signal.signal(signum, _interrupt)
    sys.unraisablehook = _unraisable
    try:
        sys.exit(_parse_and_run())
    except (PlifctlError, Interrupted) as error:
        console.fail(error)
        sys.exit(error.exit_code)
    except OSError as error:
        refusal = from_os_error(error) or MachineError(
            f"{error.filename or ''}: {error.strerror or error}".lstrip(": ")
        )
        console.fail(refusal)
        sys.exit(refusal.exit_code)
    except Exception as error:
        if is_out_of_memory(error):
            console.fail(OutOfMemoryError(f"out of memory: {error}".removesuffix(": "), hint="end other programs"))
            sys.exit(OutOfMemoryError.exit_code)
        traceback.print_exc()
        console.note("this is a bug in plifctl; please report it with the lines above")
        sys.exit(PlifctlError.exit_code)
