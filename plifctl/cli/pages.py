"""What the report's page shows, and plifctl serve, which shows it live."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl import __version__
from plifctl.cli import console, options
from plifctl.errors import PlifctlError, RunError

if TYPE_CHECKING:
    from plifctl.config.registry import Registry
    from plifctl.report.page import RunFacts
    from plifctl.runs import Run


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("serve")(serve)


def serve(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Of this machine; 0: any that is free.")] = 8765,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show the report's page live while runs go on, on this machine only; Ctrl-C ends it.

    On another machine, such as a cluster's: ssh -L 8765:127.0.0.1:8765 that-machine, and open it here.

    Example: plifctl serve
    """
    from plifctl.report.page import serve as serve_page

    registry, folder = options.registry(), options.existing_runs_dir(runs_dir)
    known: dict[Path, tuple[Any, RunFacts]] = {}  # what did not change is not read again
    server = serve_page(lambda: data_of(folder, registry, known=known), port)
    url = f"http://127.0.0.1:{server.server_port}/"
    if as_json:
        console.emit_json({"url": url, "runs_dir": str(folder)})
    else:
        console.emit(f"{url} shows {folder}; Ctrl-C ends it")
    with server:
        server.serve_forever()


def data_of(
    runs_dir: Path,
    registry: Registry,
    *,
    include_modified: bool = False,
    known: dict[Path, tuple[Any, RunFacts]] | None = None,
) -> dict[str, Any]:
    """Returns what the page shows now: all tables, every run, and recorded spikes.

    Args:
        runs_dir: Where runs lie.
        registry: Whose tables and experiments they are.
        include_modified: Use runs with overrides too.
        known: Of each run what was read, and of which state of its files; kept from one call to the next.
    """
    from plifctl.report import TABLES, build_table
    from plifctl.report.page import page_data
    from plifctl.runs import load_records

    records = load_records(runs_dir, registry.folders)
    wanted = (*TABLES, "optimism")
    tables = [build_table(name, records, registry, include_modified=include_modified) for name in wanted]
    tables += [build_table(name, records, registry) for name in ("early", "context")]
    return page_data(tables, _facts(runs_dir, registry, {} if known is None else known), __version__)


def _facts(runs_dir: Path, registry: Registry, known: dict[Path, tuple[Any, RunFacts]]) -> list[RunFacts]:
    """Every run: ours, oldest first, then committed records and imported runs."""
    from plifctl.report.page import RunFacts
    from plifctl.runs import list_runs, load_curves

    experiments = set(registry.experiments())
    ours = [_remembered(run, known) for run in list_runs(runs_dir)]
    named = {facts.name for facts in ours}
    others = [
        RunFacts(
            curve,
            curve.name,
            "imported" if curve.origin == "imported" else "record",
            registry.experiment(curve.experiment).spec.title if curve.experiment in experiments else "",
        )
        for curve in load_curves(runs_dir, registry.folders)
        if curve.name not in named
    ]
    return [*ours, *sorted(others, key=lambda facts: (facts.status != "record", facts.name))]


def _remembered(run: Run, known: dict[Path, tuple[Any, RunFacts]]) -> RunFacts:
    """What the page shows of a run, read again where a file of it has changed."""
    files = (run.path / name for name in ("config.yaml", "run.json", "metrics.jsonl", "result.json", "spikes.npz"))
    state = [(file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]
    before, facts = known.get(run.path, (None, None))
    if facts is None or before != state:
        facts = _of_run(run)
        known[run.path] = state, facts
    if facts.curve is None:
        return facts
    try:
        return replace(facts, status=run.status())  # a killed process changes no file
    except RunError as error:
        return replace(facts, status=f"damaged: {error}")


def _of_run(run: Run) -> RunFacts:
    from plifctl.config.base import flatten
    from plifctl.report.page import RunFacts
    from plifctl.runs import load_spikes
    from plifctl.runs.curves import curve_of_run

    try:
        config = run.config()
        settings = flatten(config.spec.model_dump(mode="json"))
        spikes = run.path / "spikes.npz"
        return RunFacts(
            curve_of_run(run),
            run.name,
            run.status(),
            config.spec.title,
            {key: (value, config.origins.get(key, "")) for key, value in settings.items()},
            flatten(run.environment()),
            load_spikes(spikes) if spikes.is_file() else None,
        )
    except RunError as error:
        return RunFacts(None, run.name, f"damaged: {error}")
    except PlifctlError as error:
        return RunFacts(None, run.name, str(error))
