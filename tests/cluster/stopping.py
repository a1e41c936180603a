"""A task's command that runs until it gets SIGTERM, writes its "checkpoint", and finishes when it is started again.

`stopping.py FILE`: FILE is the checkpoint. Prints what happens, a word a line.
"""

import signal
import sys
import time
from pathlib import Path


def run(checkpoint: Path) -> None:
    """Waits for SIGTERM, or finishes if the checkpoint exists."""

    def stop(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("stopping", flush=True)
        time.sleep(1)
        checkpoint.touch()
        print("saved", flush=True)
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    if checkpoint.exists():
        print("continued", flush=True)
        return
    print("started", flush=True)
    time.sleep(250)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
