"""``plifctl`` whose trainings differ from process to process, as on a GPU or with another torch.

FAULTS_NUDGE is the seed of noise that is added to the weights after each optimizer step; 0: none.
"""

import os

import torch

from plifctl.cli import main
from plifctl.training.trainer import Trainer

if __name__ == "__main__":
    seed = int(os.environ.get("FAULTS_NUDGE", "0"))
    step, noise = Trainer._optimizer_step, torch.Generator().manual_seed(seed)

    def nudged_step(trainer: Trainer) -> None:
        step(trainer)
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=noise)

    if seed:
        Trainer._optimizer_step = nudged_step  # type: ignore[method-assign]
    main()
