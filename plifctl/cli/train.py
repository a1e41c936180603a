"""plifctl train (accuracy A) and plifctl validate (accuracy B): one job, two protocols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import typer

from plifctl import paths
from plifctl.cli import options

ResumeOption = Annotated[
    str | None,
    typer.Option("--resume", metavar="RUN", help="Go on with a run: id, path, or last.", autocompletion=options.runs),
]
EpochsOption = Annotated[int | None, typer.Option("--epochs", min=1, help="Passes over the training set.")]
SubsetOption = Annotated[
    float | None,
    typer.Option("--subset", help="Fraction of each class to train and test on; marks the run as modified."),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of weights, order, dropout and augmentation.")]
PrepareOption = Annotated[
    bool,
    typer.Option("--prepare", help="Build the cache if it is missing; see plifctl prepare."),
]
EveryOption = Annotated[
    int, typer.Option("--checkpoint-every", min=0, help="Checkpoint every so many steps, not only after epochs.")
]
RankTimeoutOption = Annotated[
    float,
    typer.Option(
        "--rank-timeout",
        min=1,
        metavar="SECONDS",
        help="With several processes: how long one that does not answer is waited for.",
    ),
]

DeterministicOption = Annotated[
    bool,
    typer.Option("--deterministic", help="The same bits every time on a GPU, too, or an error where that cannot be."),
]

GraphOption = Annotated[
    bool,
    typer.Option("--graph", help="On a GPU: record a training step once as a CUDA graph, and replay it."),
]

_TRAIN = """Train, and test after each epoch (accuracy A).

Uses the whole training set and reports the maximum, which is optimistic; validate reports accuracy B.
Ctrl-C and SIGTERM stop it after writing a checkpoint; --resume goes on from there, bit for bit.

Example: plifctl train fashion-mnist-plif --epochs 2
"""

_VALIDATE = """Train with a validation set (accuracy B).

Trains on 85 % of each class, chooses the model on the other 15 %, tests it once.
Ctrl-C and SIGTERM stop it after writing a checkpoint; --resume goes on from there, bit for bit.

Example: plifctl validate gesture-plif --epochs 64
"""


def register(app: typer.Typer) -> None:
    """Adds the two subcommands."""
    app.command("train", help=_TRAIN)(_command("A"))
    app.command("validate", help=_VALIDATE)(_command("B"))


def _command(protocol: Literal["A", "B"]) -> Callable[..., None]:
    def run(
        experiment: options.OptionalExperiment = None,
        resume: ResumeOption = None,
        recipe: options.RecipeOption = None,
        epochs: EpochsOption = None,
        subset: SubsetOption = None,
        seed: SeedOption = None,
        overrides: options.SetOption = None,
        device: options.DeviceOption = None,
        data_in: options.DataInOption = None,
        prepare: PrepareOption = False,
        raw: options.RawOption = None,
        no_checksum: options.ChecksumOption = False,
        no_download: options.NoDownloadOption = False,
        checkpoint_every: EveryOption = 0,
        kernel: options.KernelOption = "auto",
        deterministic: DeterministicOption = False,
        graph: GraphOption = False,
        rank_timeout: RankTimeoutOption = 120.0,
        dry_run: options.DryRunOption = False,
        cache_dir: options.CacheDirOption = None,
        runs_dir: options.RunsDirOption = None,
        as_json: options.JsonOption = False,
    ) -> None:
        from plifctl.cli.job import Request, run_job

        values = {"train.epochs": epochs, "train.subset": subset, "train.seed": seed}
        flags = [f"{key}={value}" for key, value in values.items() if value is not None]
        ask = Request(
            protocol=protocol,
            experiment=experiment,
            resume=resume,
            recipe=recipe,
            overrides=[*(overrides or []), *flags],
            device=device,
            data_in=data_in,
            prepare=prepare,
            raw=raw,
            no_checksum=no_checksum,
            no_download=no_download,
            checkpoint_every=checkpoint_every,
            kernel=kernel,
            deterministic=deterministic,
            graph=graph,
            rank_timeout=rank_timeout,
            dry_run=dry_run,
            cache_dir=cache_dir or paths.cache_dir(),
            runs_dir=runs_dir or paths.runs_dir(),
            as_json=as_json,
        )
        run_job(ask)

    return run
