"""The commands that train: what each rank prints."""

from types import SimpleNamespace
from typing import Any

import pytest

from plifctl.cli.train import _run
from plifctl.pipeline.train_options import TrainOptions


@pytest.mark.parametrize(("rank", "documents"), [(None, 1), (0, 1), (1, 0)])
def test_dry_run_of_several_ranks_prints_one_plan(
    monkeypatch: pytest.MonkeyPatch, rank: int | None, documents: int
) -> None:
    printed: list[Any] = []
    info = None if rank is None else SimpleNamespace(rank=rank)
    monkeypatch.setattr("plifctl.training.distributed.rank_info", lambda: info)
    monkeypatch.setattr("plifctl.pipeline.train.plan_training", lambda options: options)
    monkeypatch.setattr("plifctl.cli.train._print_plan", lambda plan, as_json: printed.append(plan))
    _run(TrainOptions(experiment="demo"), dry_run=True, as_json=True)
    assert len(printed) == documents
