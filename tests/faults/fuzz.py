"""Coverage-guided mutation: atheris keeps what reaches new code, and mutates that again.

    PYTHONPATH=tests python -m faults.fuzz aedat4 --runs 100000 --seed 1

The process ends with 0 when nothing but documented errors came, within 2 s each; else the file lies in ``--place``.
"""

from __future__ import annotations

import argparse
import logging
import random
import resource
import sys
import warnings
from pathlib import Path

from faults.mutation import SECONDS, mutated

COMPILED = ["plifctl.data.loops", "plifctl.cache.fletcher32", "plifctl.snn.kernels"]
"""By numba, which knows no calls that count branches."""

GROWTH_MB = 256
"""What the process may grow by, after it has read a first file: its corpus, caches of compiled patterns, the file."""


def main() -> None:
    """Reads mutated files of one format until there were enough, or one is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1, help="0 is another one each time")
    parser.add_argument("--place", type=Path, default=Path("fuzzing"), help="folder for the corpus and what fails")
    asked = parser.parse_args()

    import atheris

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    corpus = asked.place / "corpus"
    corpus.mkdir(parents=True)
    (asked.place / "files").mkdir()
    with atheris.instrument_imports(include=["plifctl"], exclude=COMPILED):
        from faults.checksummed_formats import every_format

        found = every_format(asked.place / "files")[asked.format]
        found.read(found.whole)  # what is imported late is imported here
    (corpus / "whole").write_bytes(found.whole)

    def read(content: bytes) -> None:
        try:
            found.read(content)
        except found.documented:
            return

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        generator = random.Random(seed)
        if generator.random() < 0.5:
            return bytes(atheris.Mutate(content, most))
        return mutated(content, generator)[:most]

    options = {
        "runs": asked.runs,
        "seed": asked.seed,
        "max_len": max(4096, 4 * len(found.whole)),
        "timeout": SECONDS,
        "rss_limit_mb": _resident_mb() + GROWTH_MB,
        "artifact_prefix": f"{asked.place}/",
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)]
    atheris.Setup(arguments, read, custom_mutator=mutate)
    atheris.Fuzz()


def _resident_mb() -> int:
    """The most that libFuzzer believes was resident so far; a process begins with what its parent once had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
