"""The samples of an evaluation whose frames are changed."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_training import ArraySamples
from untrained import CPU, SHAPE, event_spec, make_model

from plifctl.exchange.model_card import Evidence
from plifctl.pipeline.evaluation_samples import EvaluationSamples
from plifctl.training.batches import BatchLoader


@pytest.mark.parametrize("batch_size", [2, 3, 16])
def test_only_the_frames_of_each_sample_are_reversed_not_its_padding(tmp_path: Path, batch_size: int) -> None:
    trained = make_model(event_spec(tmp_path, f"train.batch_size={batch_size}")).trained
    lengths = np.array([4, 1, 3, 2, 4, 3, 1])
    content = np.random.default_rng(0).integers(1, 9, (7, 4, *SHAPE)).astype(np.uint8)
    content[np.arange(4) >= lengths[:, None]] = 0
    cache = SimpleNamespace(counts={"n_frames": lengths})
    stored = ArraySamples(content)
    stored.labels = stored.labels % 3
    loader = BatchLoader(stored, trained.spec, CPU)
    rows = np.array([0, 2, 3, 5, 6])
    samples = EvaluationSamples(trained, cache, loader, rows, Evidence(), "reversed")  # type: ignore[arg-type]
    found = torch.cat([*samples.pairs(rows)]).numpy()
    for row, sample in zip(rows, found, strict=True):
        own = content[row, : lengths[row]]
        np.testing.assert_array_equal(sample, [*own[::-1], *content[row, lengths[row] :]])
