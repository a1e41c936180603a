"""The caches that a sweep builds before its runs."""

from dataclasses import replace
from pathlib import Path

from sweeping import sweep_options

from plifctl.config.sweep import SweepSpec
from plifctl.data.source import RawSource
from plifctl.pipeline.progress import silent
from plifctl.sweep.caches import prepare_caches
from plifctl.sweep.expansion import expand


def test_recordings_other_than_those_that_the_runs_are_trained_on_are_refused(places: Path) -> None:
    (member,) = expand(SweepSpec.model_validate({"experiments": ("demo",)}))
    dataset = member.spec.dataset.model_copy(update={"raw": "recordings", "layout": "class-folders"})
    assert member.spec.frames is not None
    frames = member.spec.frames.model_copy(update={"training_set": None})
    spec = member.spec.model_copy(update={"dataset": dataset, "frames": frames})
    own = replace(member, experiment=replace(member.experiment, spec=spec))
    options = replace(sweep_options(places / "runs"), source=RawSource(places / "other"))
    (reason,) = prepare_caches([own], {own.name: "missing"}, options, silent).values()
    assert "synthetic-gesture states raw: recordings, which its runs are trained on" in reason
    assert not [*places.iterdir()]
