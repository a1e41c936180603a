"""The claims of the paper, what the authors' runs and those of one other source say about them, and a verdict by rule.

A verdict follows from the findings (:mod:`~plifctl.report.evidence`) and is never written down: it changes with the
runs that count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from plifctl.config.choices import CLAIMS_TABLE, ResultSource
from plifctl.report.evidence import BREAKDOWN, FASTER, FEWER_EPOCHS, MARGIN, STARTS, Evidence, Finding
from plifctl.report.results import SOURCE_WORDS, Results
from plifctl.report.table import Cell, Entry, Number, Table


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        text: The claim.
        place: Where the paper makes it.
        rule: When the runs of a data set support it (yes), contradict it (no), or neither (open).
        findings: Finds the evidence.
        stored: The evidence is stored beside results, so that runs may lack it.
    """

    text: str
    place: str
    rule: str
    findings: Callable[[Evidence], Iterator[Finding]]
    stored: bool = False


CLAIMS = (
    Claim(
        "PLIF is above LIF at the same τ",
        "Sec. 4.3, Table 4",
        "difference of the maxima; p as in the table significance, after Holm. Yes: p < 0.05 and PLIF above; no: p < "
        "0.05 and LIF above; else open.",
        Evidence.plif_above_lif,
    ),
    Claim(
        "LIF breaks down with a bad τ, PLIF does not",
        "Abstract; Sec. 4.3, Figure 6, Table 4",
        f"change of the maxima from τ = {STARTS[0]:g} to τ = {STARTS[1]:g}. A breakdown is a loss of "
        f"{100 * BREAKDOWN:g} points or more: test samples alone give two equally good networks at most 8.2 on the "
        "smallest test set, 288 samples. Yes: LIF breaks down and loses significantly, and the 95 % interval of PLIF's "
        "loss is below it; no: that of LIF's loss is below it, or that of PLIF's above; else open.",
        Evidence.lif_breaks_down,
    ),
    Claim(
        "max pooling is as good as average pooling",
        "Abstract; Sec. 1, second contribution; Sec. 4.3, Table 5",
        f"difference of the maxima with its 95 % interval, and a margin of {100 * MARGIN:g} point: Table 5 has "
        "differences of 0.2 to 2.1 points, and a test set of 10,000 samples can decide one point, one of 288 or 1,000 "
        "cannot. Yes: the interval is above -1; no: it is below -1; else open.",
        Evidence.max_as_good_as_average,
    ),
    Claim(
        "PLIF learns faster",
        "Abstract; Sec. 1, first contribution; Sec. 4.3, Figure 6; Sec. 5",
        "epochs of PLIF and of LIF to 98 % of the lower of their maxima (table speed). One seed: yes, if LIF needs "
        f"{FASTER:g} times as many or more, and at least {FEWER_EPOCHS} more, as epochs are whole numbers; no, if PLIF "
        "does; else open. Several seeds: by the 95 % interval of the difference, paired, or as with one seed where all "
        "have the same difference.",
        Evidence.plif_learns_faster,
    ),
    Claim(
        "time constants from different starts gather",
        "Sec. 4.3, Figure 7",
        "ratio of the τ that two starts lead to (table convergence): before training, after the last epoch (geometric "
        "mean over layers), and of the layer where it is greatest. Yes: in every layer at most the square root of that "
        "before training; no: the mean is not smaller than before; else open.",
        Evidence.time_constants_gather,
    ),
    Claim(
        "temporal information is used",
        "Abstract; Sec. 1, third contribution; Sec. 3.6",
        "change of the accuracy of trained networks when the frames of each test sample are in random order, with its "
        f"95 % interval, and the margin of claim 3, {100 * MARGIN:g} point; of data sets of events only, as images "
        "have no order. Yes: the interval of the loss is above it; no: it is below it; else open; where all seeds lose "
        "the same, each run by its samples. Reversed frames and neurons without memory are shown beside it, and decide "
        "nothing. A run has these tests after plifctl eval RUN --controls. No network was trained on shuffled frames: "
        "a loss says that it uses the order, not that its data set cannot be classified without it.",
        Evidence.time_is_used,
        stored=True,
    ),
)
"""The claims, in the order of the table."""

_LIMITS = (
    "Evidence is of every data set that has runs of both sides, of the same recipe, samples, seeds and epochs; of "
    "claim 6, of every data set with runs that keep such tests. MNIST and N-MNIST are not in Tables 4 and 5, only in "
    "the authors' logs. Verdict: holds, if all comparisons are yes and none is missing; holds only for those that are "
    "yes, if there are others; not supported, if none is; against names those that are no. In brackets: what the "
    "evidence lacks. With one seed, intervals and p are of the test samples only: whether another seed gives the same "
    "is unknown; with several, they are of the seeds, on the given test set. "
    "Maxima of claims 1 to 4 are over test epochs (protocol A), so the test set chose the epoch."
)


def build_claims_table(
    authors: Results, ours: Results | None = None, source: ResultSource = "mine", runs_dir: Path | None = None
) -> Table:
    """Returns each claim with the evidence and the verdict of the authors' runs, and of those of another source.

    Args:
        authors: Finds the authors' runs.
        ours: Finds those of another source; None: the authors' only.
        source: That source.
        runs_dir: Runs directory, whose runs may have stored predictions; None: there are none.
    """
    sides: dict[ResultSource, Evidence] = {"authors": Evidence(authors)}
    if ours is not None:
        sides[source] = Evidence(ours, runs_dir)
    cells: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    notes = {"all": _LIMITS}
    for index, claim in enumerate(CLAIMS, start=1):
        row = [Cell(f"{claim.text} ({index})"), Cell(claim.place)]
        notes[str(index)] = claim.rule
        for side, evidence in sides.items():
            findings = list(claim.findings(evidence))
            texts = _summary(findings), verdict(findings)
            if claim.stored and not texts[0]:
                reason = "the authors' logs have none" if side == "authors" else "no run has any"
                texts = reason, "no stored evidence"
            row += map(Cell, texts)
            entries += _entries(claim, _heads(side), findings, texts[1])
        cells.append(tuple(row))
    return Table(
        CLAIMS_TABLE,
        "Claims of the paper, and what runs say about them",
        "Evidence and verdicts follow from the rules in the notes.",
        ("Claim", "In the paper", *(head for side in sides for head in _heads(side))),
        tuple(cells),
        tuple(entries),
        notes,
        tuple(dict.fromkeys(warning for evidence in sides.values() for warning in evidence.warnings)),
    )


def _heads(source: ResultSource) -> tuple[str, str]:
    """Returns the heads of the columns of a source: its evidence and its verdict."""
    words = SOURCE_WORDS[source]
    return words.runs, f"Verdict, {words.verdict}"


def verdict(findings: Sequence[Finding]) -> str:
    """Returns the verdict on a claim.

    Args:
        findings: Those of all pairs of experiments, also of those without runs.
    """
    by_outcome = _by_outcome(findings)
    known = [finding for found in by_outcome.values() for finding in found]
    if not known:
        return "no runs"
    supporting, against = by_outcome["yes"], by_outcome["no"]
    if not supporting:
        text = "not supported"
    elif len(supporting) == len(known) and {(f.dataset, f.tau) for f in findings} == {
        (f.dataset, f.tau) for f in known
    }:
        text = "holds"  # a recipe with runs of one side only is no gap where another has both
    else:
        text = f"holds only for {_join(supporting)}"
    text += f"; against: {_join(against)}" if against else ""
    short = _shortcomings(known)
    return f"{text} ({'; '.join(short)})" if short else text


def _shortcomings(known: Sequence[Finding]) -> list[str]:
    """Returns what the evidence lacks: seeds, epochs, samples, the settings of the experiment, today's plifctl."""
    found: list[str] = []
    if single := sum(finding.seeds == 1 for finding in known):
        found.append("one seed each" if single == len(known) else f"one seed in {single} of {len(known)} comparisons")
    numbers = [finding.number for finding in known if finding.number is not None]
    epochs = sorted({n.epochs for n in numbers if n.epochs is not None and n.epochs != n.planned})
    if epochs:
        first = f"{epochs[0]} to {epochs[-1]} epochs" if len(epochs) > 1 else f"{epochs[0]} epochs"
        found.append(f"after the first {'epoch' if epochs == [1] else first}")
    return found + sorted({text for finding in known for text in finding.lacks})


def _by_outcome(findings: Sequence[Finding]) -> Mapping[str, list[Finding]]:
    return {word: [finding for finding in findings if finding.outcome == word] for word in ("yes", "open", "no")}


def _join(findings: Sequence[Finding]) -> str:
    """Returns the names of findings, those with the same τ and settings together: ``CIFAR-10, MNIST at τ = 16``."""
    alike: dict[tuple[str, str], list[str]] = {}
    for finding in findings:
        alike.setdefault((finding.tau, finding.settings), []).append(finding.dataset)
    return "; ".join(
        f"{', '.join(names)}{f' at {tau}' if tau else ''}{f' ({settings})' if settings else ''}"
        for (tau, settings), names in alike.items()
    )


def _summary(findings: Sequence[Finding]) -> str:
    """Returns the evidence as the text of a cell."""
    found = _by_outcome(findings).items()
    return ". ".join(f"{word.capitalize()}: {'; '.join(f.text for f in group)}" for word, group in found if group)


def _entries(claim: Claim, heads: tuple[str, str], findings: Sequence[Finding], text: str) -> Iterator[Entry]:
    """Yields the evidence with its runs, and the verdict, for the long form."""
    for finding in findings:
        numbers = () if finding.number is None else (finding.number, Number(str(finding.outcome), None))
        column = f"{heads[0]}: {finding.label}"
        for name, number in zip(("", ", outcome"), numbers, strict=False):
            yield Entry(claim.text, f"{column}{name}", "", (number,))
        for experiment in finding.missing:
            yield Entry(claim.text, column, "", (), experiment, "A", finding.beside)
    yield Entry(claim.text, heads[1], "", (Number(text, None),))
