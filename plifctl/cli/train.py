"""plifctl train (accuracy A), validate (accuracy B) and refit (accuracy C): one training, three protocols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from plifctl.cli import console, options
from plifctl.config.choices import PROTOCOL_ACCURACY, Protocol

if TYPE_CHECKING:
    from plifctl.pipeline.train import TrainPlan, TrainResult
    from plifctl.pipeline.train_options import TrainOptions

NameOption = Annotated[
    str | None, typer.Option("--name", help="Name of the new run (default: time, experiment, digest, seed).")
]
ResumeOption = Annotated[
    str | None,
    typer.Option(
        "--resume",
        metavar="RUN",
        help="Resume a run: id, path, or last; auto with --name: resume that run if it exists, else begin it.",
        autocompletion=options.runs,
    ),
]
FoldOption = Annotated[
    str | None,
    typer.Option(
        "--cv-fold",
        metavar="K or K/N",
        help="Test on fold K of a cross-validation: of the experiment's own (split:), or of N folds.",
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", help="Seed of weights, order, dropout and augmentation.")]
DigestOption = Annotated[
    str | None,
    typer.Option(
        "--digest", metavar="HEX", help="Fail unless the experiment has this digest (in config.yaml of a run)."
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="RUN|FILE",
        help="Begin with the weights of a trained network, where name and shape fit; the other layers begin anew.",
        autocompletion=options.runs,
    ),
]
FreezeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--freeze", metavar="PATTERN", help="Do not train these layers or parameters, e.g. 'conv*'; can be repeated."
    ),
]
PrepareOption = Annotated[
    bool, typer.Option("--prepare", help="Build the cache if it is missing, as plifctl prepare does.")
]
RankTimeoutOption = Annotated[
    float,
    typer.Option("--rank-timeout", min=1, metavar="SECONDS", help="With several processes: time to wait for a rank."),
]
DeterministicOption = Annotated[
    bool | None,
    typer.Option(
        "--deterministic/--no-deterministic",
        help="Use deterministic algorithms only, also on a GPU; an error where torch has none. "
        "By default as the resumed run was begun.",
        show_default=False,
    ),
]
GraphOption = Annotated[
    bool | None,
    typer.Option(
        "--graph/--no-graph",
        help="On a GPU: record a training step as a CUDA graph, and replay it (default: if trials choose it).",
    ),
]

_TRAIN = """Train, and test after each epoch (accuracy A).

Uses the whole training set and reports the maximum, which is optimistic; validate reports accuracy B.
Ctrl-C, SIGTERM or a closed terminal stops it after writing a checkpoint; --resume continues from there (on the CPU
bit for bit).

Example: plifctl train fashion-mnist-plif --epochs 2
"""

_VALIDATE = """Train with a validation set (accuracy B).

Trains on 85 % of each class, selects the model on the other 15 %, tests it once.
Ctrl-C, SIGTERM or a closed terminal stops it after writing a checkpoint; --resume continues from there (on the CPU
bit for bit).

Example: plifctl validate gesture-plif --epochs 64
"""

_REFIT = """Train on all samples but the test samples, and test once, after the last epoch (accuracy C).

For settings that validate has chosen, the number of epochs included: nothing is chosen any more. Validation samples
of the data set are trained on as well.
Ctrl-C, SIGTERM or a closed terminal stops it after writing a checkpoint; --resume continues from there (on the CPU
bit for bit).

Example: plifctl refit gesture-plif --epochs 64
"""


def _command(protocol: Protocol, about: str) -> Callable[..., None]:
    def run(
        experiment: options.OptionalExperiment = None,
        name: NameOption = None,
        resume: ResumeOption = None,
        recipe: options.RecipeOption = None,
        epochs: options.EpochsOption = None,
        subset: options.SubsetOption = None,
        seed: SeedOption = None,
        cv_fold: FoldOption = None,
        overrides: options.SetOption = None,
        digest: DigestOption = None,
        weights: WeightsOption = None,
        freeze: FreezeOption = None,
        device: options.DeviceOption = None,
        data_in: options.DataInOption = None,
        prepare: PrepareOption = False,
        raw: options.RawOption = None,
        no_checksum: options.ChecksumOption = False,
        no_download: options.NoDownloadOption = False,
        checkpoint_every: options.CheckpointEveryOption = 0,
        kernel: options.KernelOption = "auto",
        deterministic: DeterministicOption = None,
        graph: GraphOption = None,
        rank_timeout: RankTimeoutOption = 120.0,
        dry_run: options.DryRunOption = False,
        copy_cache: options.CopyCacheOption = None,
        cache_dir: options.CacheDirOption = None,
        runs_dir: options.RunsDirOption = None,
        as_json: options.JsonOption = False,
    ) -> None:
        from plifctl.training.process import prepare_process

        prepare_process()  # before the imports below import torch

        from plifctl.config.overrides import training_overrides
        from plifctl.errors import UsageError
        from plifctl.pipeline.train_options import TrainOptions

        if not prepare and (raw is not None or no_checksum or no_download):
            raise UsageError("--raw, --no-checksum and --no-download require --prepare", hint="add --prepare")
        flags = training_overrides(epochs=epochs, subset=subset, seed=seed, freeze=freeze)
        fold = _fold_overrides(cv_fold) if cv_fold is not None else ()
        wanted = TrainOptions(
            protocol=protocol,
            experiment=experiment,
            name=name,
            resume=resume,
            recipe=recipe,
            overrides=(*(overrides or ()), *flags, *fold),
            digest=digest,
            weights=weights,
            build_cache=prepare,
            source=options.raw_source(raw, no_checksum=no_checksum, no_download=no_download),
            device=device,
            data_in=data_in,
            kernel=kernel,
            deterministic=deterministic,
            graph=graph,
            checkpoint_every=checkpoint_every,
            rank_timeout=rank_timeout,
            copy_cache=copy_cache,
            cache_dir=cache_dir,
            runs_dir=runs_dir,
        )
        _run(wanted, dry_run=dry_run, as_json=as_json)

    run.__doc__ = about
    return run


train, validate, refit = _command("A", _TRAIN), _command("B", _VALIDATE), _command("C", _REFIT)


def _fold_overrides(text: str) -> list[str]:
    """Returns the overrides that ``--cv-fold K`` or ``--cv-fold K/N`` stands for."""
    from plifctl.config.overrides import fold_overrides
    from plifctl.errors import UsageError

    fold, slash, folds = text.partition("/")
    if not fold.isdecimal() or (slash and not folds.isdecimal()):
        raise UsageError(f"--cv-fold {text}: expected the number of a fold, or fold/folds", hint="e.g. --cv-fold 1/5")
    return fold_overrides(fold, folds if slash else None)


def _run(wanted: TrainOptions, *, dry_run: bool, as_json: bool) -> None:
    from plifctl.cli.observer import TerminalObserver
    from plifctl.pipeline.train import plan_training, train
    from plifctl.training.distributed import rank_info

    if dry_run:
        plan = plan_training(wanted)
        if (info := rank_info()) is None or info.rank == 0:
            _print_plan(plan, as_json)
        return
    result = train(wanted, TerminalObserver(), console.bar)
    if result.rank == 0:
        _print_result(result, as_json)


def _print_plan(plan: TrainPlan, as_json: bool) -> None:
    tree = asdict(plan)
    if as_json:
        console.emit_json(tree)
    else:
        tree = {key: value for key, value in tree.items() if value is not None}
        rows = [(key, ", ".join(value) if isinstance(value, list) else value) for key, value in tree.items()]
        console.emit_table(("", "value"), rows)


def _print_result(result: TrainResult, as_json: bool) -> None:
    record = result.run.record()
    if as_json:
        console.emit_json({**record.model_dump(mode="json"), "path": str(result.run.path)})
        return
    kind = f"accuracy {record.protocol}, {PROTOCOL_ACCURACY[record.protocol].short}"
    console.emit(f"{kind}: {100 * record.accuracy:.2f} % (epoch {record.best_epoch} of {record.epochs})")
    if record.stopped_early:
        patience = result.run.config().spec.train.early_stop
        console.emit(f"stopped early by train.early_stop={patience}: no better accuracy")
    if record.validation_accuracy is not None:
        console.emit(f"its validation accuracy: {100 * record.validation_accuracy:.2f} %")
    console.emit(f"run: {result.run.path}")
