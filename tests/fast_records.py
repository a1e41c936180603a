"""Made-up records of the recipe ``fast``, of a run of plifctl whose epochs are timed, and of the authors' run."""

from functools import cache
from typing import Any

from factories import made_record

from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.runs import ResultRecord, RunData

CPU = {"processor": "Some CPU", "device": "cpu"}
B_DATA = RunData(verified=True, complete=True, train=54000, validation=6000, test=10000, cache="c")


@cache
def registry() -> Registry:
    return load_registry()


def made(
    recipe: str, protocol: str, tests: tuple[float, ...], seed: int = 1, of: str = "mnist-plif", **changes: Any
) -> ResultRecord:
    """Returns a record of an experiment; its epochs take a minute of processor time."""
    found_in = registry().experiment(of, recipe=recipe, overrides=changes.get("overrides", ()))  # type: ignore[arg-type]
    spec = found_in.for_protocol(protocol).spec  # type: ignore[arg-type]
    values = {"recipe": recipe, "protocol": protocol, "digest": spec.digest, "environment": CPU, "T": spec.T}
    values |= {"run": f"{recipe}-{protocol}-{seed}", "cpu_seconds": (60.0,) * len(tests)}
    found: ResultRecord = made_record(of, tests, seed, **(values | changes))
    return found


def fast(accuracy: float, seed: int = 1, **changes: Any) -> ResultRecord:
    """Returns a run of 3 epochs in protocol B: 1, 2 and 3 minutes."""
    values = {"data": B_DATA, "accuracy": accuracy, "validation_accuracy": 0.9, "cpu_seconds": (60.0, 120.0, 180.0)}
    values |= {"validation_curve": (0.7, 0.8, 0.9), "test_accuracy": (None,) * 3, "best_epoch": 3}
    return made("fast", "B", (0.0,) * 3, seed, **(values | changes))


def log(*tests: float | None, **changes: Any) -> ResultRecord:
    """Returns the authors' run, whose record knows neither data nor processor time."""
    known = tuple(0.0 if value is None else value for value in tests)
    values = {"origin": "authors", "run": "authors-mnist-plif", "data": None, "digest": None, "environment": {}}
    return made("authors", "A", known, **(values | {"test_accuracy": tests, "cpu_seconds": ()} | changes))


LOG = log(0.90, 0.95, 0.93, None, 0.98)
TIMED = made("authors", "A", (0.5, 0.6), cpu_seconds=(120.0, 240.0))
"""A run of plifctl whose epochs take 3 minutes."""
