"""The caches that a sweep builds before its runs."""

from dataclasses import replace
from pathlib import Path

import pytest
from sweeping import sweep_options

from plifctl.config.sweep import SweepSpec
from plifctl.data.source import RawSource
from plifctl.pipeline.progress import silent
from plifctl.sweep.caches import cache_of, group_by_cache, prepare_caches
from plifctl.sweep.expansion import Member, expand


def member_of(raw: Path) -> Member:
    """Returns a training on own recordings in a place."""
    (member,) = expand(SweepSpec.model_validate({"experiments": ("demo",)}))
    dataset = member.spec.dataset.model_copy(update={"raw": str(raw), "layout": "class-folders"})
    assert member.spec.frames is not None
    frames = member.spec.frames.model_copy(update={"training_set": None})
    spec = member.spec.model_copy(update={"dataset": dataset, "frames": frames})
    return replace(member, experiment=replace(member.experiment, spec=spec))


def reasons(places: Path, raw: str, root: str) -> list[str]:
    """Returns why no cache is built for a data set with ``raw:``, if ``--raw`` names a place."""
    own = member_of(places / raw)
    options = replace(sweep_options(places / "runs"), source=RawSource(places / root))
    return list(prepare_caches([own], {own.name: "missing"}, options, silent).values())


def test_trainings_share_a_cache_only_if_their_recordings_lie_in_one_place(places: Path) -> None:
    members = [member_of(places / name) for name in ("monday", "tuesday", "monday")]
    assert [len(group) for group in group_by_cache(members)] == [2, 1]


def test_cache_is_looked_for_with_the_command_that_builds_it(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (member,) = expand(SweepSpec.model_validate({"experiments": ("demo",)}))
    commands: list[str] = []
    monkeypatch.setattr("plifctl.sweep.caches.find_current_cache", lambda *_, prepare: commands.append(prepare))
    cache_of(member, places / "caches")
    assert commands[0].startswith("plifctl prepare ")
    assert str(places / "caches") in commands[0]


def test_recordings_other_than_those_that_the_runs_are_trained_on_are_refused(places: Path) -> None:
    (places / "recordings").mkdir(parents=True)
    (reason,) = reasons(places, "recordings", "other")
    assert f"synthetic-gesture states raw: {places}/recordings, which its runs are trained on" in reason
    assert [*places.iterdir()] == [places / "recordings"]


@pytest.mark.parametrize(("raw", "root"), [("recordings", "./recordings"), ("moved", "recordings")])
def test_recordings_that_the_runs_are_trained_on_are_read(places: Path, raw: str, root: str) -> None:
    (places / "recordings").mkdir(parents=True)
    (reason,) = reasons(places, raw, root)
    assert f"{places}/recordings" in reason  # read, and empty
    assert "which its runs are trained on" not in reason
