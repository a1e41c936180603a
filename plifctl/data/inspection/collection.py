"""Facts of every file of a folder or an archive: from headers where these suffice, else decoded within a budget."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from functools import partial
from itertools import zip_longest

from plifctl.config.dataset import ReadingSpec
from plifctl.data.formats.columns import AS_USUAL
from plifctl.data.inspection.facts import Finding, RecordingFacts
from plifctl.data.inspection.listing import File
from plifctl.data.inspection.recording import inspect_recording, summarise_recording
from plifctl.data.thread_map import ordered_map
from plifctl.errors import PlifctlError

DECODED_BYTES = 2**28
"""Bytes of files that are decoded unless all are."""

OnFacts = Callable[[RecordingFacts], None]
"""Called with the facts of each file, in order."""


def summarise_files(
    files: Iterable[File], *, reading: ReadingSpec = AS_USUAL, workers: int = 1, on_facts: OnFacts
) -> None:
    """Finds what each file states about itself, by a few reads; a member of an archive is only listed.

    Args:
        files: The files.
        reading: What they do not say about themselves.
        workers: Number of threads.
        on_facts: Called with the facts of each.
    """
    _for_each(files, partial(_summarise, reading), workers, on_facts)


def decode_files(
    files: Iterable[File], *, reading: ReadingSpec = AS_USUAL, workers: int = 1, on_facts: OnFacts
) -> None:
    """Decodes files.

    Args:
        files: The files.
        reading: What they do not say about themselves.
        workers: Number of threads.
        on_facts: Called with the facts of each; of one that cannot be read, with the reason.
    """
    _for_each(files, partial(_decode, reading), workers, on_facts)


def _for_each(files: Iterable[File], work: Callable[[File], RecordingFacts], workers: int, on_facts: OnFacts) -> None:
    with closing(ordered_map(work, files, workers)) as found:
        for facts in found:
            on_facts(facts)


def _summarise(reading: ReadingSpec, file: File) -> RecordingFacts:
    if file.open is None:
        return RecordingFacts(file.name, file.nbytes, "unread", "")
    try:
        with file.open() as stream:
            return summarise_recording(file.name, stream, file.nbytes, reading)
    except (OSError, PlifctlError) as error:
        return _unreadable(file, error)


def _decode(reading: ReadingSpec, file: File) -> RecordingFacts:
    try:
        return inspect_recording(file.name, file.load(), reading)[0]
    except (OSError, PlifctlError) as error:
        return _unreadable(file, error)


def _unreadable(file: File, error: OSError | PlifctlError) -> RecordingFacts:
    if isinstance(error, PlifctlError):
        finding = Finding("problem", "unreadable", str(error).removeprefix(f"{file.name}: "), error.hint)
    else:
        finding = Finding("problem", "unreadable", error.strerror or str(error))
    return RecordingFacts(file.name, file.nbytes, "unreadable", "", findings=(finding,))


def choose_files(summaries: Sequence[RecordingFacts], budget: int | None) -> set[str]:
    """Returns the names of the files to decode: of every folder and format some, as many as the budget allows.

    The smallest file of each format is decoded in any case.

    Args:
        summaries: What the files state about themselves.
        budget: Bytes to decode in all; None: every file that is or may be a recording.
    """
    candidates = [facts for facts in summaries if facts.kind in ("recording", "unread")]
    if budget is None:
        return {facts.name for facts in candidates}
    smallest: dict[str, RecordingFacts] = {}
    groups: dict[tuple[str, str], list[RecordingFacts]] = defaultdict(list)
    for facts in candidates:
        groups[facts.format, facts.name.rpartition("/")[0]].append(facts)
        smallest[facts.format] = min(smallest.get(facts.format, facts), facts, key=lambda one: one.nbytes)
    chosen = {facts.name for facts in smallest.values()}
    left = budget - sum(facts.nbytes for facts in smallest.values())
    for turn in zip_longest(*groups.values()):  # the first file of each group, then the second of each …
        for facts in filter(None, turn):
            if facts.name not in chosen and facts.nbytes <= left:
                chosen.add(facts.name)
                left -= facts.nbytes
    return chosen
