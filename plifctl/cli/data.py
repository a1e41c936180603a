"""plifctl data: recordings before they are prepared."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plifctl.cli import console, options
from plifctl.errors import RawDataError

if TYPE_CHECKING:
    from plifctl.data.inspection.facts import Finding, RecordingFacts
    from plifctl.pipeline.inspect_raw import InspectedRecording

_commands = typer.Typer(
    no_args_is_help=True, help="Look at recordings before they are prepared.", rich_markup_mode=None
)

_OLDEST, _NEWEST = 946_684_800, 4_102_444_800  # the years 2000 and 2100, seconds since 1970


def register(app: typer.Typer) -> None:
    """Adds the group of subcommands."""
    app.add_typer(_commands, name="data")


@_commands.command("inspect")
def inspect(
    path: Annotated[Path, typer.Argument(parser=options.path, help="A recording.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="What recordings do not say: time_unit, columns, fields, source, transpose, flip_x, flip_y.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", parser=options.path, help="Picture to write, .png: events in time slices.")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show what recordings contain, and what is missing or wrong.

    Format, sensor, events, times, what was assumed, and what to do about problems. Nothing is written but the picture.

    Example: plifctl data inspect recordings/wave_01.aedat4 --out wave.png
    """
    from plifctl.pipeline.inspect_raw import InspectOptions, inspect_file

    wanted = InspectOptions(path, tuple(overrides or ()), out=out)
    found = inspect_file(wanted, console.bar)
    if as_json:
        console.emit_json(_recording_tree(found.facts) | {"out": str(found.out) if found.out else None})
    else:
        _print_recording(found)
    if found.facts.kind != "recording":
        raise typer.Exit(RawDataError.exit_code)


def _recording_tree(facts: RecordingFacts) -> dict[str, Any]:
    """Returns the facts of a recording as JSON values."""
    events, summary = facts.events, facts.summary
    tree: dict[str, Any] = {
        "name": facts.name,
        "bytes": facts.nbytes,
        "kind": facts.kind,
        "format": facts.format,
        "camera": summary.camera or None,
        "sensor_stated": summary.sensor,
        "sensor_seen": facts.seen,
        "n_events": facts.n_events,
        "first_us": facts.span_us[0] if facts.span_us else None,
        "last_us": facts.span_us[1] if facts.span_us else None,
        "duration_us": facts.duration_us,
        "others": dict(summary.others),
        "findings": [finding._asdict() for finding in facts.findings],
    }
    if events is not None:
        tree |= {
            "n_on": events.n_on,
            "n_dropped": events.n_dropped,
            "n_outside": events.n_outside,
            "n_duplicates": events.n_duplicates,
            "x": events.x,
            "y": events.y,
            "remarks": [remark._asdict() for remark in events.remarks],
        }
    return tree


def _print_recording(found: InspectedRecording) -> None:
    facts = found.facts
    rows = list(_rows(facts))
    width = max(len(name) for name, _ in rows)
    console.emit(f"{found.path}")
    for name, value in rows:
        console.emit(f"  {name:{width}}  {value}")
    _print_findings(facts.findings)
    if found.out is not None:
        console.emit(f"written: {found.out}")


def _rows(facts: RecordingFacts) -> Iterable[tuple[str, str]]:
    summary, events = facts.summary, facts.events
    yield "format", f"{facts.format}, {_bytes(facts.nbytes)}"
    if summary.camera:
        yield "camera", summary.camera
    if facts.sensor is not None:
        stated = "stated in the file" if summary.sensor else "as far as events reach"
        yield "sensor", f"{facts.sensor[0]} × {facts.sensor[1]} pixels, {stated}"
    if events is not None and events.x is not None and events.y is not None:
        yield "seen", f"x from {events.x[0]} to {events.x[1]}, y from {events.y[0]} to {events.y[1]}"
    if facts.n_events is not None:
        on = f", {100 * events.n_on / events.n_events:.1f} % on" if events is not None and events.n_events else ""
        yield "events", f"{facts.n_events:,}{on}"
    if facts.span_us is not None and facts.duration_us is not None and facts.n_events:
        first, last = facts.span_us
        yield "time", f"{first:,} to {last:,} µs{_date(first)}"
        yield "duration", _seconds(facts.duration_us)
        if facts.duration_us:
            yield "rate", f"{facts.n_events / facts.duration_us * 1e6:,.0f} events per second"
    if events is not None and events.n_duplicates:
        yield "duplicates", f"{events.n_duplicates:,}, equal to another event in time, place and polarity"
    if summary.others:
        yield "not read", ", ".join(f"{count:,} {what}" for what, count in summary.others)


def _print_findings(findings: Iterable[Finding]) -> None:
    for finding in findings:
        console.emit(f"{finding.kind}: {finding.message}")
        for line in filter(None, finding.hint.split("\n")):
            console.emit(f"  hint: {line}")


def _date(us: int) -> str:
    """Returns the date of a time that counts from 1970; empty for the clock of a camera, which begins with 0."""
    if not _OLDEST <= us / 1e6 < _NEWEST:
        return ""
    return f" (from {datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC)"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} bytes"


def _seconds(us: int) -> str:
    return f"{us / 1e6:,.3f} s" if us >= 1000 else f"{us} µs"
