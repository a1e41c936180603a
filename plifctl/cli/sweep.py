"""plifctl sweep: train a whole table, on this machine or a cluster; show its status; cancel it."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl.cli import console, options
from plifctl.config.choices import PROTOCOLS, Engine
from plifctl.errors import Interrupted, MachineError, RunError, UsageError

if TYPE_CHECKING:
    from plifctl.config.sweep import SweepSpec
    from plifctl.sweep.planning import SweepOptions
    from plifctl.sweep.status import SweepStatus

Experiments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="EXPERIMENT",
        help="Experiments: names or YAML files; or a sweep: its name (plifctl ls sweeps) or YAML file.",
        show_default=False,
    ),
]
TablesOption = Annotated[
    list[str] | None, typer.Option("--table", help="All runs of a table of the paper; can be repeated.")
]
SeedsOption = Annotated[str | None, typer.Option("--seeds", metavar="1,2,3", help="Seeds; 1-5 are five.")]
GridOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=V,V…", help="Set a value, or a list of values; all combinations are trained."),
]
ProtocolOption = Annotated[
    str | None,
    typer.Option("--protocol", metavar="A,B", help="Protocols, of A, B and C (default: A, or those of the table)."),
]
FoldsOption = Annotated[
    int | None, typer.Option("--cv-folds", metavar="N", help="Train every fold of an N-fold cross-validation.")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Name of the sweep (default: what it trains).")]
EngineOption = Annotated[Engine, typer.Option("--engine", help="Where runs are trained.")]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs", "--array", min=1, help="Runs at the same time (default: one for each GPU; on a cluster: its limit)."
    ),
]
GpusOption = Annotated[
    int | None, typer.Option("--gpus", min=0, help="GPUs of each run; several are started by torchrun.")
]
CpusOption = Annotated[
    int | None,
    typer.Option("--cpus", min=1, help="Cores of each run (default: an equal share; SLURM: as the cluster decides)."),
]
TimeOption = Annotated[
    str | None, typer.Option("--time", metavar="24h", help="SLURM: time limit of a job; it continues itself.")
]
SlurmOption = Annotated[
    list[str] | None,
    typer.Option("--slurm", metavar="KEY=VALUE", help="SLURM: another option of sbatch, e.g. partition=gpu."),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="Ray: a running cluster (default: this machine only)."),
]
SweepName = Annotated[str | None, typer.Argument(metavar="NAME", help="Name of the sweep (default: the latest).")]


group = typer.Typer(
    no_args_is_help=True, help="Train many runs as one command, on this machine or a cluster.", rich_markup_mode=None
)


@group.command()
def run(
    experiments: Experiments = None,
    table: TablesOption = None,
    seeds: SeedsOption = None,
    overrides: GridOption = None,
    epochs: options.EpochsOption = None,
    subset: options.SubsetOption = None,
    protocol: ProtocolOption = None,
    cv_folds: FoldsOption = None,
    recipe: options.RecipeOption = None,
    name: NameOption = None,
    engine: EngineOption = "local",
    jobs: JobsOption = None,
    gpus: GpusOption = None,
    cpus: CpusOption = None,
    time_limit: TimeOption = None,
    slurm: SlurmOption = None,
    address: AddressOption = None,
    device: options.DeviceOption = None,
    checkpoint_every: options.CheckpointEveryOption = 0,
    copy_cache: options.CopyCacheOption = None,
    raw: options.RawOption = None,
    no_checksum: options.ChecksumOption = False,
    no_download: options.NoDownloadOption = False,
    dry_run: options.DryRunOption = False,
    cache_dir: options.CacheDirOption = None,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train what a sweep lacks.

    Every combination of experiments, --set lists, protocols, folds and seeds is a run. The same command again trains
    only what is missing or failed. Caches are built first, each once.
    Ctrl-C stops the runs of this machine and of Ray, each after a checkpoint; jobs of SLURM continue.
    Exit code: 0 if all runs are finished (SLURM: submitted), 6 if one is not.

    Example: plifctl sweep run nmnist-plif --set neuron.tau_0=2,16 --seeds 1,2,3 --dry-run
    """
    from plifctl.config.overrides import training_overrides
    from plifctl.sweep.engine import Resources
    from plifctl.sweep.planning import SweepOptions

    texts = [*(overrides or ()), *training_overrides(epochs=epochs, subset=subset)]
    given = {
        "sweep": name,
        "tables": tuple(table or ()),
        "seeds": _seeds(seeds),
        "protocols": _protocols(protocol),
        "folds": cv_folds,
        "recipe": recipe,
    }
    _check_engine_options(engine, time_limit=time_limit, slurm=slurm, address=address)
    wanted = SweepOptions(
        spec=_spec(experiments or (), given, texts),
        engine=engine,
        resources=Resources(jobs, gpus, cpus, time_limit, _pairs(slurm or ()), address),
        command=shlex.join(["plifctl", *sys.argv[1:]]),
        source=options.raw_source(raw, no_checksum=no_checksum, no_download=no_download),
        device=device,
        checkpoint_every=checkpoint_every,
        copy_cache=copy_cache,
        cache_dir=cache_dir,
        runs_dir=runs_dir,
    )
    if dry_run:
        _print_plan(wanted, as_json=as_json)
    else:
        _run(wanted, as_json=as_json)


def _spec(experiments: list[str] | tuple[()], given: dict[str, Any], texts: list[str]) -> SweepSpec:
    """Returns the sweep of the command line, which may begin with that of a file or of the registry."""
    from pydantic import ValidationError

    from plifctl.config.problems import first_problem
    from plifctl.config.sweep import SweepSpec, split_overrides

    sweeps = {name: sweep for name in experiments if (sweep := _read_sweep(name)) is not None}
    if sweeps and len(experiments) > 1:
        first = next(iter(sweeps))
        raise UsageError(f"{first}: a sweep, which stands alone", hint=f"plifctl sweep run {shlex.quote(first)}")
    one, several = split_overrides(texts)
    stated = {key: value for key, value in given.items() if value not in (None, ())}
    if not sweeps:
        tree = {**stated, "experiments": experiments, "set": one, "grid": several}
    else:
        (base,) = sweeps.values()
        read = base.model_dump()
        again = {*one, *several}
        kept = {field: {k: v for k, v in read[field].items() if k not in again} for field in ("set", "grid")}
        tree = {**read, **stated, "set": {**kept["set"], **one}, "grid": {**kept["grid"], **several}}
    try:
        return SweepSpec.model_validate(tree)
    except ValidationError as error:
        problem = first_problem(error).removeprefix("Value error, ")
        raise UsageError(problem, hint="plifctl sweep run --help") from None


def _read_sweep(name: str) -> SweepSpec | None:
    """Returns the sweep of a YAML file or of a name in the registry; None if it is an experiment."""
    from plifctl.config.lookup import is_file_name
    from plifctl.config.sweep import is_sweep_file, read_sweep
    from plifctl.sweep.registered import named_sweep

    if is_file_name(name):
        return read_sweep(Path(name)) if is_sweep_file(Path(name)) else None
    return named_sweep(name, options.registry())


def _seeds(text: str | None) -> tuple[int, ...]:
    """Returns the seeds of ``1,2,3`` or ``1-5``."""
    found: list[int] = []
    for part in (text or "").split(",") if text is not None else ():
        match = re.fullmatch(r"(\d{1,18})(?:-(\d{1,18}))?", part.strip())
        if match is None or int(match[2] or match[1]) - int(match[1]) not in range(1000):
            raise UsageError(f"--seeds {text}: expected numbers", hint="e.g. --seeds 1,2,3 or --seeds 1-5")
        found += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(found)


def _protocols(text: str | None) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",")) if text is not None else ()
    if wrong := [part for part in found if part not in PROTOCOLS]:
        raise UsageError(f"--protocol {text}: unknown protocol {wrong[0]!r}", hint="--protocol A, B or C, or e.g. A,B")
    return found


def _pairs(texts: list[str] | tuple[()]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise UsageError(f"--slurm {text}: expected key=value", hint="e.g. --slurm partition=gpu")
    found: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if (key := key.strip().lstrip("-")) in found:
            raise UsageError(f"--slurm {key}: stated twice", hint=f"--slurm {key}={found[key]},{value}, if both may be")
        found[key] = value
    return found


def _check_engine_options(
    engine: Engine, *, time_limit: str | None, slurm: list[str] | None, address: str | None
) -> None:
    needed = {"--time": (time_limit, "slurm"), "--slurm": (slurm, "slurm"), "--address": (address, "ray")}
    for option, (value, owner) in needed.items():
        if value and engine != owner:
            raise UsageError(f"{option} is an option of {owner}", hint=f"--engine {owner}, or omit {option}")


def _print_plan(wanted: SweepOptions, *, as_json: bool) -> None:
    from plifctl.cli.sweep_table import plan_summary, plan_table
    from plifctl.sweep.dry_run import dry_run

    found = dry_run(wanted)
    if as_json:
        console.emit_json(found.to_json())
        return
    console.emit_table(*plan_table(found, width=console.terminal_width()))
    for line in plan_summary(found):
        console.note(line)


def _run(wanted: SweepOptions, *, as_json: bool) -> None:
    from plifctl import paths
    from plifctl.cli.sweep_table import sweep_display
    from plifctl.sweep.expansion import sweep_name
    from plifctl.sweep.plan import ACTIVE, PlanFile
    from plifctl.sweep.run import run_sweep
    from plifctl.sweep.status import SweepWatch, read_plan

    try:
        with sweep_display() as display:
            plan = run_sweep(wanted, display.update, console.bar)
    except Interrupted as stop:
        file = PlanFile(wanted.runs_dir or paths.runs_dir(), sweep_name(wanted.spec))
        shown = f"plifctl sweep status {file.argument} shows its status"
        stop.hint = f"{shown}\nto continue: {wanted.command}"
        raise
    try:
        status = SweepWatch(plan.name, wanted.runs_dir).read()
    except MachineError as error:  # the batch system has taken the jobs, and does not answer now
        console.warn(str(error))
        status = read_plan(plan, wanted.runs_dir or paths.runs_dir())
    _print_status(status, as_json=as_json)
    if any(run.state not in ("finished", *ACTIVE) for run in plan.runs):
        raise typer.Exit(RunError.exit_code)


def _print_status(status: SweepStatus, *, as_json: bool) -> None:
    from plifctl.cli.sweep_table import print_status

    if as_json:
        console.emit_json(status.to_json())
    else:
        print_status(status)


@group.command()
def status(name: SweepName = None, runs_dir: options.RunsDirOption = None, as_json: options.JsonOption = False) -> None:
    """Show the status of a sweep.

    On a terminal the table is live until all runs have ended; Ctrl-C stops watching, not the runs. The authors'
    accuracy is what their run of the experiment had reached by the same epoch, by the same protocol.

    Example: plifctl sweep status
    """
    from plifctl.cli.sweep_table import sweep_display
    from plifctl.sweep.status import SweepWatch

    watch = SweepWatch(name, options.existing_runs_dir(runs_dir))
    found = watch.read()
    if found.is_active and console.can_draw() and not as_json:
        try:
            with sweep_display() as display:
                display.update(found.runs)
                for found in watch.follow(found):  # noqa: B020 - the last one is printed
                    display.update(found.runs)
        except Interrupted as stop:
            raise Interrupted(stop.exit_code - 128, "stopped watching; the runs continue") from None
    _print_status(found, as_json=as_json)


@group.command()
def cancel(
    name: Annotated[str, typer.Argument(help="Name of the sweep.")],
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Stop the runs of a sweep, each after a checkpoint.

    The plifctl sweep run command of the sweep continues them.

    Example: plifctl sweep cancel table-4
    """
    from plifctl.sweep.status import SweepWatch, cancel_sweep

    folder = options.existing_runs_dir(runs_dir)
    stopped = cancel_sweep(name, folder)
    plan = SweepWatch(name, folder).read().plan
    if as_json:
        console.emit_json({"sweep": name, "stopped": stopped, "command": plan.command})
    else:
        console.note(
            f"{name}: {stopped} run{'' if stopped == 1 else 's'} stopped" if stopped else f"{name}: nothing to stop"
        )
        console.note(f"to continue: {plan.command}")
