"""Coverage-guided mutation: atheris keeps files that reach new code, and mutates them again.

    PYTHONPATH=tests python -m faults.fuzz aedat4 --runs 100000 --seed 1

Exits with 0 if every file was read or raised a documented error within 2 s; otherwise the file is in ``--place``.
"""

from __future__ import annotations

import argparse
import logging
import random
import resource
import sys
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from faults.mutation import SECONDS, mutate_bytes

GROWTH_MB = 256
"""Growth of the process allowed after the first file: corpus, caches of compiled patterns, the file, and what atheris'
instrumentation keeps, some 6 kB a file."""


def main() -> None:
    """Reads mutated files of one format until the number is reached or one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1, help="seed; 0: random")
    parser.add_argument("--place", type=Path, default=Path("fuzzing"), help="folder for the corpus and failing files")
    asked = parser.parse_args()

    import atheris

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    corpus = asked.place / "corpus"
    for folder in (corpus, asked.place / "files"):
        folder.mkdir(parents=True, exist_ok=True)  # of an earlier process, whose corpus is continued
    with atheris.instrument_imports(include=["plifctl"], exclude=list(_compiled_modules())):
        from faults.checksummed_formats import formats_with_repacked

        found = formats_with_repacked(asked.place / "files")[asked.format]
        found.read(found.valid)  # so that late imports happen here
    (corpus / "valid").write_bytes(found.valid)

    def read(content: bytes) -> None:
        try:
            found.read(content)
        except found.documented:
            return

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        generator = random.Random(seed)
        if generator.random() < 0.5:
            return bytes(atheris.Mutate(content, most))
        return mutate_bytes(content, generator)[:most]

    options = {
        "runs": asked.runs,
        "seed": asked.seed,
        "max_len": max(4096, 4 * len(found.valid)),
        "timeout": SECONDS,
        "rss_limit_mb": _resident_mb() + GROWTH_MB,
        "artifact_prefix": f"{asked.place}/",
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)]
    atheris.Setup(arguments, read, custom_mutator=mutate)
    atheris.Fuzz()


def _compiled_modules() -> Iterator[str]:
    """Yields the modules of loops that numba compiles: it cannot compile atheris' calls that count branches."""
    found = find_spec("plifctl")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    for path in package.rglob("*.py"):
        if "from plifctl.jit import" in path.read_text(encoding="utf-8"):
            yield ".".join((package.name, *path.relative_to(package).with_suffix("").parts))


def _resident_mb() -> int:
    """Returns the peak memory that libFuzzer sees; a process starts with that of its parent."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
