"""What accuracy is left of trained networks under each control of ``plifctl eval``: ``python -m benchmarks.controls``.

Every network is tested as it is, with the frames of each sample in random order, backwards, and replaced by their mean,
and with changed time constants. Of several networks, such as runs with other seeds, it prints mean and range.

    python -m benchmarks.controls runs/*-demo-*
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import plifctl

CONTROLS: dict[str, dict[str, Any]] = {
    "`--time shuffled`": {"time": "shuffled"},
    "`--time reversed`": {"time": "reversed"},
    "`--time scattered`": {"time": "scattered"},
    "`--time collapsed`": {"time": "collapsed"},
    "`--tau mean`": {"tau": "mean"},
    "`--tau 2`": {"tau": 2.0},
    "`--tau no-leak`": {"tau": "no-leak"},
    "`--tau no-memory`": {"tau": "no-memory"},
}


def measure(networks: Sequence[str]) -> Iterator[tuple[str, list[float]]]:
    """Yields the name of each control, and the accuracy of every network under it, 0…1; first without a control."""
    for name, control in ({"unchanged": {}} | CONTROLS).items():
        yield name, [plifctl.evaluate(one, operations=0, layer_times=0, **control).accuracy for one in networks]


def summarize(accuracies: Sequence[float]) -> str:
    """Returns mean and range, in percent.

    Example:
        >>> summarize([0.5, 0.75])
        '62.50 (50.00 to 75.00)'
    """
    mean, low, high = (100 * value for value in (sum(accuracies) / len(accuracies), min(accuracies), max(accuracies)))
    return f"{mean:.2f} ({low:.2f} to {high:.2f})" if len(accuracies) > 1 else f"{mean:.2f}"


def main() -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser(description="Accuracy of trained networks under each control.")
    parser.add_argument("networks", nargs="+", help="runs, exported files or folders, or zoo:NAME")
    networks = parser.parse_args().networks
    logging.basicConfig(level=logging.WARNING)
    print("| control | test accuracy % |\n|---|--:|")
    for name, accuracies in measure(networks):
        print(f"| {name} | {summarize(accuracies)} |", flush=True)


if __name__ == "__main__":
    main()
