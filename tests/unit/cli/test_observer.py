import signal
from collections.abc import Iterator

import pytest

from plifctl.cli.observer import TerminalObserver
from plifctl.training.process import stop_signals


@pytest.fixture
def at_once() -> Iterator[list[int]]:
    """The signals that would have stopped the command at once."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in stop_signals()}
    for number in before:
        signal.signal(number, lambda number, _: received.append(number))
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("second", "expected"), [("SIGTERM", []), ("SIGHUP", []), ("SIGINT", [signal.SIGINT])], ids=str
)
def test_second_signal_stops_a_training_at_once_only_if_it_is_ctrl_c(
    at_once: list[int], second: str, expected: list[int]
) -> None:
    observer = TerminalObserver()
    with observer.training():
        signal.raise_signal(signal.SIGTERM)
        assert observer.stop_signal() == signal.SIGTERM
        signal.raise_signal(signal.Signals[second])
    assert at_once == expected


def test_signal_while_a_message_is_written_still_stops_the_training(
    at_once: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(text: str) -> None:
        raise RuntimeError("reentrant call inside <_io.BufferedWriter>")

    monkeypatch.setattr("plifctl.cli.console.note", busy)
    observer = TerminalObserver()
    with observer.training():
        signal.raise_signal(signal.SIGTERM)
    assert (observer.stop_signal(), at_once) == (signal.SIGTERM, [])
