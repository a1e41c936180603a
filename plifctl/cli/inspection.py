"""Results of plifctl data inspect, as text and as JSON values."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from plifctl.cli import console
from plifctl.errors import list_names
from plifctl.units import format_bytes

if TYPE_CHECKING:
    from plifctl.data.formats.headers import Size
    from plifctl.data.inspection.facts import Finding, RecordingFacts
    from plifctl.data.inspection.folder import ClassRow, FolderFacts
    from plifctl.data.inspection.label_table import FoundTable
    from plifctl.pipeline.inspect import InspectedFolder, InspectedRecording

_OLDEST, _NEWEST = 946_684_800, 4_102_444_800  # the years 2000 and 2100, seconds since 1970
_ROWS = 60  # of the table of classes
_SHOWN = 10  # outliers and other files that are listed


def recording_tree(facts: RecordingFacts) -> dict[str, Any]:
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
        "reading": facts.reading.model_dump(mode="json", exclude_defaults=True),
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


def print_recording(found: InspectedRecording) -> None:
    """Prints the facts of a recording."""
    facts = found.facts
    rows = list(_recording_rows(facts))
    width = max(len(name) for name, _ in rows)
    console.emit(f"{found.path}")
    for name, value in rows:
        console.emit(f"  {name:{width}}  {value}")
    _print_findings(facts.findings)
    if found.out is not None:
        console.emit(f"written: {found.out}")


def _recording_rows(facts: RecordingFacts) -> Iterable[tuple[str, str]]:
    summary, events = facts.summary, facts.events
    yield "format", f"{facts.format}, {format_bytes(facts.nbytes)}"
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
        _print_hint(finding.hint)


def _print_hint(hint: str) -> None:
    for line in filter(None, hint.split("\n")):
        console.emit(f"  hint: {line}")


def _date(us: int) -> str:
    """Returns the date of a time that counts from 1970; empty for the clock of a camera, which begins with 0."""
    if not _OLDEST <= us / 1e6 < _NEWEST:
        return ""
    return f" (from {datetime.fromtimestamp(us / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC)"


def _seconds(us: int) -> str:
    return f"{us / 1e6:,.3f} s" if us >= 1000 else f"{us} µs"


def print_folder(found: InspectedFolder) -> None:
    """Prints the facts of a folder or an archive."""
    facts = found.facts
    files = (*facts.recordings, *facts.unreadable, *facts.others)
    console.emit(
        f"{found.path}: {len(files) + len(facts.tables):,} files, {format_bytes(sum(one.nbytes for one in files))}"
    )
    if facts.recordings or facts.unreadable:
        console.emit("")
        _print_formats(facts)
        console.emit("")
        _print_layout(facts)
    for table in _different_tables(facts.tables):
        _print_table(table, sum(bool(one.recording) for one in facts.tables))
    _print_shared(facts)
    _print_list("stands out", [f"{one.name}: {one.message}" for one in facts.outliers])
    for hint in dict.fromkeys(one.hint for one in facts.outliers):
        console.emit(f"  hint: {hint}")
    _print_list("no recording", [f"{one.name}: {one.format}" for one in facts.others])
    if archive := next((one.name for one in facts.others if one.format == "a zip archive"), None):
        console.emit(f"  hint: plifctl data inspect {shlex.quote(str(found.path / archive))}")
    if found.prepare:
        console.emit(f"These are the files of a data set of the registry: {found.prepare}")
    if found.out is not None:
        console.emit(f"written: {found.out}")


def _print_formats(facts: FolderFacts) -> None:
    failed = ("unreadable",) if facts.unreadable else ()
    rows = [
        (
            row.format or "not read",
            f"{row.n_files:,}",
            *((f"{row.n_unreadable:,}",) if failed else ()),
            _number(row.n_events),
            list_names([_size(sensor) for sensor in row.sensors], 2) or _at_least(row.seen),
            format_bytes(row.nbytes),
        )
        for row in facts.formats()
    ]
    console.emit_table(("format", "files", *failed, "events", "sensor", "size"), rows)
    if left := len(facts.recordings) - facts.n_decoded:
        console.emit(
            f"{facts.n_decoded:,} recordings were decoded in full; of {left:,} only what their headers state is known "
            "(--full decodes all)"
        )


def _print_layout(facts: FolderFacts) -> None:
    layout = facts.layout
    shapes = {
        "folders": "SPLIT/CLASS/FILE",
        "class-folders": "CLASS/FILE",
        "label-table": "files and a table of labels",
    }
    inside = f" in {layout.root}/" if layout.root else ""
    if layout.name is None:
        console.emit(f"layout: no folders of classes{inside}")
    else:
        console.emit(f"layout: {shapes[layout.name]}{inside} (layout: {layout.name})")
    if layout.begins_with_people:
        inner = list_names(layout.nested, 3)
        console.emit(
            f"these folders look like people, and {inner} in them like the classes: expected CLASS/PERSON/FILE"
        )
    rows = [
        (
            *((row.place.split,) if layout.splits else ()),
            *((row.place.label,) if layout.classes else ()),
            f"{row.n_files:,}",
            _number(row.n_events),
            *(map(_plain_seconds, row.durations_us) if row.durations_us else ("-",) * 3),
        )
        for row in facts.classes()
    ]
    places = (*(("split",) if layout.splits else ()), *(("class",) if layout.classes else ()))
    columns = (*places, "recordings", "events", "shortest (s)", "median (s)", "longest (s)")
    console.emit_table(columns, rows[:_ROWS])
    if len(rows) > _ROWS:
        console.emit(f"{len(rows) - _ROWS:,} more classes (--json lists all)")


def _different_tables(tables: Sequence[FoundTable]) -> list[FoundTable]:
    """Returns the tables that are shown: of those that belong to one recording each, the first."""
    of_recordings = [table for table in tables if table.recording]
    return [*(table for table in tables if not table.recording), *of_recordings[:1]]


def _print_table(table: FoundTable, n_like_it: int) -> None:
    console.emit("")
    if table.recording:
        console.emit(
            f"{n_like_it:,} tables of labels, one for a recording, such as {table.name} ({table.n_rows:,} rows)"
        )
    else:
        console.emit(f"{table.name}: a table of labels, {table.n_rows:,} rows")
    console.emit(f"  columns     {', '.join(table.columns)}")
    for role, column in table.roles.items():
        console.emit(f"  {role:11} {column}")
    if table.classes:
        console.emit(f"  classes     {list_names(table.classes, 20)}")
    if table.n_missing:
        console.emit(f"  problem: {table.n_missing:,} rows name no file in this folder")
    if table.n_unlisted and not table.recording:
        console.emit(f"  problem: {table.n_unlisted:,} recordings are not in the table")


def _print_shared(facts: FolderFacts) -> None:
    shared = facts.findings()
    if shared:
        console.emit("")
    for finding, names in shared:
        console.emit(f"{'unreadable' if finding.topic == 'unreadable' else finding.kind}: {finding.message}")
        if names[0] not in finding.message:
            console.emit(f"  in {list_names(names, 1)}")
        _print_hint(finding.hint)


def _print_list(what: str, lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN]:
        console.emit(f"{what}: {line}")
    if len(lines) > _SHOWN:
        console.emit(f"{what}: {len(lines) - _SHOWN:,} more (--json lists all)")


def _number(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"


def _size(size: Size | None) -> str:
    return "-" if size is None else f"{size[0]} × {size[1]}"


def _at_least(seen: Size | None) -> str:
    return "-" if seen is None else f"≥ {_size(seen)}"


def _plain_seconds(us: float) -> str:
    return f"{us / 1e6:,.3f}"


def folder_tree(found: InspectedFolder) -> dict[str, Any]:
    """Returns the facts of a folder as JSON values."""
    facts = found.facts
    return {
        "path": str(found.path),
        "layout": facts.layout.name,
        "root": facts.layout.root,
        "splits": list(facts.layout.splits),
        "formats": [row._asdict() for row in facts.formats()],
        "classes": [_class_tree(row) for row in facts.classes()],
        "tables": [vars(table) for table in facts.tables],
        "findings": [{**shared.finding._asdict(), "names": shared.names} for shared in facts.findings()],
        "outliers": [one._asdict() for one in facts.outliers],
        "recordings": [recording_tree(one) for one in facts.recordings],
        "unreadable": [recording_tree(one) for one in facts.unreadable],
        "others": [recording_tree(one) for one in facts.others],
        "prepare": found.prepare or None,
    }


def _class_tree(row: ClassRow) -> dict[str, Any]:
    shortest, median, longest = row.durations_us or (None, None, None)
    return {
        "split": row.place.split or None,
        "class": row.place.label or None,
        "n_files": row.n_files,
        "n_events": row.n_events,
        "duration_us": {"min": shortest, "median": median, "max": longest},
    }
