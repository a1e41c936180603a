"""The job behind train and validate: find the cache, make or take up a run, train, keep the result."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plifctl import console, paths
from plifctl.cli import options
from plifctl.errors import CacheError, CorruptCacheError, Interrupted, ResumeError, UsageError
from plifctl.registry import Resolved
from plifctl.runs import Protocol, ResultRecord, Run, RunConfig, RunData, RunRecorder, find_run

if TYPE_CHECKING:
    import torch

    from plifctl.cache import Cache
    from plifctl.splits import Split
    from plifctl.training.loop import EpochRow


class Job:
    """One training as asked for on the command line: a new run, or one to go on with."""

    def __init__(
        self,
        protocol: Protocol,
        experiment: str | None,
        recipe: str,
        flags: list[str],
        resume: str | None,
        device: str | None,
        cache_dir: Path | None,
        runs_dir: Path | None,
    ) -> None:
        self.protocol: Protocol = protocol
        self.verb = "train" if protocol == "A" else "validate"
        self.device = device
        self.cache_dir = cache_dir or paths.cache_dir()
        self.runs_dir = runs_dir or paths.runs_dir()
        self.resumed = find_run(resume, self.runs_dir) if resume is not None else None
        if self.resumed is not None:
            self.resolved = self._as_before(self.resumed.config(), experiment, recipe, flags)
        elif experiment is not None:
            self.resolved = self._resolve(experiment, recipe, flags)
        else:
            raise UsageError(
                f"plifctl {self.verb} what?", hint=f"plifctl {self.verb} demo; plifctl ls lists experiments"
            )

    def _resolve(self, experiment: str, recipe: str, flags: list[str]) -> Resolved:
        resolved = options.registry().experiment(experiment, recipe=options.recipe(recipe), overrides=flags)
        if self.protocol == "B" and resolved.spec.validation.T is not None:
            spec = resolved.spec.model_copy(update={"T": resolved.spec.validation.T})
            return Resolved(spec, resolved.origins, resolved.overrides)
        return resolved

    def _as_before(self, config: RunConfig, experiment: str | None, recipe: str, flags: list[str]) -> Resolved:
        """The experiment of a run to go on with; only its number of epochs may be another, and larger."""
        assert self.resumed is not None
        name = self.resumed.name
        if config.protocol != self.protocol:
            verb = "train" if config.protocol == "A" else "validate"
            raise ResumeError(f"{name} follows protocol {config.protocol}", hint=f"plifctl {verb} --resume {name}")
        if experiment is None:
            changed = {text.split("=")[0].strip() for text in flags}
            kept = [text for text in config.overrides if text.split("=")[0].strip() not in changed]
            resolved = self._resolve(config.experiment, config.recipe, [*kept, *flags])
        else:
            resolved = self._resolve(experiment, recipe, flags)
        was, now = config.spec, resolved.spec
        before, after = (_flat({**s.science(), "name": s.name, "seed": s.train.seed}) for s in (was, now))
        different = [
            f"{key}: was {before.get(key)}, now {after.get(key)}"
            for key in {**before, **after}
            if before.get(key) != after.get(key)
        ]
        if now.train.epochs < was.train.epochs and flags:
            different.append(f"train.epochs: was {was.train.epochs}, now {now.train.epochs}; they may only grow")
        if different:
            raise ResumeError(
                f"{name} was made with other settings:\n  " + "\n  ".join(different),
                hint=f"go on with its own: plifctl {self.verb} --resume {name}",
            )
        return resolved

    def run(
        self, prepare: bool, raw: Path | None, no_checksum: bool, checkpoint_every: int, dry_run: bool, as_json: bool
    ) -> None:
        import torch

        from plifctl.runs import create_run, describe_machine, load_checkpoint, write_config
        from plifctl.training.data import Feeder
        from plifctl.training.loop import Rows, Trainer

        spec = self.resolved.spec
        cache = self._cache(prepare and not dry_run, raw, no_checksum)
        split = self._split(cache)
        for text in (*cache.notes, *split.notes):
            console.warn(text)
        if self.resolved.modified:
            console.note(f"modified: {', '.join(self.resolved.modified)}; the run stays out of the paper's tables")
        device = choose_device(self.device)
        feeder = Feeder(cache, spec, device)
        if dry_run:
            self._say_plan(cache, split, feeder.steps(split.train), device, as_json)
            return
        environment = describe_machine(str(device), torch.get_num_threads())
        used = {"path": str(cache.path), "content_digest": cache.content_digest}
        if self.resumed is None:
            parts = {"cache": used, "split": split.to_json(cache.sample_ids), "environment": environment}
            run = create_run(self.runs_dir, self.resolved, self.protocol, **parts)
        else:
            run = self.resumed
            had = run.info()["cache"]["content_digest"]
            if had != cache.content_digest:
                raise ResumeError(
                    f"{run.name} was trained on a cache of content {had[:12]}; "
                    f"{cache.path} has {cache.content_digest[:12]}"
                )
        config = RunConfig(spec.name, spec.recipe, self.protocol, self.resolved.overrides, spec)
        if run.status() == "finished" and spec.train.epochs <= run.record().epochs:
            console.note(f"{run.name} is finished; --epochs makes it longer")
            _say_result(run, run.record(), as_json)
            return
        state = load_checkpoint(run.checkpoint("last")) if run.checkpoint("last").exists() else None
        epochs_before = state["progress"]["epoch"] if state is not None else 0
        with console.bar(spec.title, "batches") as bar:
            recorder = _Watched(run, self.resolved.spec, bar, first_epoch=epochs_before)
            with recorder.live(), _signals_noted(recorder):
                if self.resumed is not None:
                    write_config(run, self.resolved, self.protocol)
                rows = Rows(split.train, split.validation, split.test)
                trainer = Trainer(spec, feeder, rows, recorder, checkpoint_every=checkpoint_every)
                if state is not None:
                    trainer.restore(state)
                _say_start(run, spec.title, trainer, device, epochs_before)
                try:
                    outcome = trainer.run()
                except Interrupted as stopped:
                    stopped.hint = f"go on with: plifctl {self.verb} --resume {run.name}"
                    raise
                data = RunData(
                    verified=cache.verified,
                    complete=cache.complete_set,
                    train=len(split.train),
                    validation=len(split.validation),
                    test=len(split.test),
                    cache=cache.content_digest,
                )
                record = recorder.finish(outcome, config, data, environment)
        _say_result(run, record, as_json)

    def _cache(self, prepare: bool, raw: Path | None, no_checksum: bool) -> Cache:
        from plifctl.cache import build_cache, find_cache, recipe_of
        from plifctl.events.sources import open_raw

        spec = self.resolved.spec
        command = options.prepare_command(self.resolved)
        wanted = recipe_of(spec.dataset, spec.T, spec.frames)
        content = self.resumed.info()["cache"]["content_digest"] if self.resumed is not None else None
        try:
            return find_cache(wanted, self.cache_dir, prepare=f"{command}  (or --prepare here)", content=content)
        except CorruptCacheError:
            raise
        except CacheError:
            if not prepare:
                raise
        source = open_raw(spec.dataset, raw, frames=spec.frames, verify=not no_checksum)
        T = spec.T if spec.dataset.kind == "events" else None
        with console.bar(f"framing {spec.dataset.title}", "samples") as bar:
            return build_cache(
                source,
                T,
                self.cache_dir,
                workers=options.DEFAULT_WORKERS,
                made_by=command,
                progress=lambda n, of: bar.update(n, of),
            )

    def _split(self, cache: Cache) -> Split:
        from plifctl.splits import split_a, split_b

        spec = self.resolved.spec
        if self.protocol == "A":
            return split_a(cache.labels, cache.is_test, spec.train.subset, spec.dataset.classes)
        return split_b(
            cache.labels,
            cache.is_test,
            train_fraction=spec.validation.train_fraction,
            rounding=spec.validation.rounding,
            subset=spec.train.subset,
            classes=spec.dataset.classes,
        )

    def _say_plan(self, cache: Cache, split: Split, steps: int, device: torch.device, as_json: bool) -> None:
        spec = self.resolved.spec
        plan: dict[str, Any] = {
            "experiment": spec.name,
            "recipe": spec.recipe,
            "protocol": self.protocol,
            "modified": list(self.resolved.modified),
            "cache": str(cache.path),
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
            "T": spec.T,
            "epochs": spec.train.epochs,
            "steps_per_epoch": steps,
            "device": str(device),
            "runs_dir": str(self.runs_dir),
        }
        if as_json:
            console.emit_json(plan)
        else:
            console.emit_table(("", "value"), [(key, _text(value)) for key, value in plan.items()])


class _Watched(RunRecorder):
    """A recorder that also shows what happens: a bar for the epoch, a line after it."""

    def __init__(self, run: Run, spec: Any, bar: console.Bar, *, first_epoch: int) -> None:
        super().__init__(run, spec, first_epoch=first_epoch)
        self._bar = bar

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        detail = f"loss {loss:.4f}" if part == "train" else ""
        self._bar.update(step, steps, title=f"epoch {epoch}/{self.spec.train.epochs} {part}", detail=detail)

    def on_epoch(self, row: EpochRow) -> None:
        super().on_epoch(row)
        accuracies = {"train": row.train_accuracy, "val": row.validation_accuracy, "test": row.test_accuracy}
        parts = [f"epoch {row.epoch}/{self.spec.train.epochs}", f"loss {row.loss:.4f}"]
        parts += [f"{name} {100 * value:.2f} %" for name, value in accuracies.items() if value is not None]
        parts.append("τ " + " ".join(f"{tau:.2f}" for tau in row.tau))
        parts.append("rate " + " ".join(f"{rate:.3f}" for rate in row.firing_rate))
        parts.append(f"{row.seconds:.1f} s")
        console.note("  ".join(parts))


@contextmanager
def _signals_noted(recorder: RunRecorder) -> Iterator[None]:
    """The first signal asks the training to stop at the next step; the second one does not wait."""

    def ask(signum: int, frame: object) -> None:
        recorder.signum = signum
        for number, handler in previous.items():
            signal.signal(number, handler)
        console.note("stopping after this step; once more stops at once")

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def choose_device(name: str | None) -> torch.device:
    """Returns the torch device of that name, or the best there is.

    Raises:
        UsageError: There is no such device here.
    """
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"--device {name}: {str(error).splitlines()[0]}", hint="--device cpu works everywhere"
        ) from None
    return device


def _say_start(run: Run, title: str, trainer: Any, device: torch.device, epochs_before: int) -> None:
    parameters = sum(p.numel() for p in trainer.model.parameters())
    console.note(f"{title}: {parameters:,} parameters on {device}, run {run.path}")
    if epochs_before or trainer.progress.step:
        console.note(f"going on after epoch {epochs_before}, step {trainer.progress.step}")


def _say_result(run: Run, record: ResultRecord, as_json: bool) -> None:
    if as_json:
        console.emit_json(record.model_dump(mode="json"))
        return
    what = "best test accuracy" if record.protocol == "A" else "test accuracy of the model chosen by validation"
    console.emit(f"{what}: {100 * record.accuracy:.2f} % (epoch {record.best_epoch} of {record.epochs})")
    if record.validation_accuracy is not None:
        console.emit(f"its validation accuracy: {100 * record.validation_accuracy:.2f} %")
    console.emit(f"run: {run.path}")


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _text(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
