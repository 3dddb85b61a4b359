"""Signals that stop a training: it is saved first, at a moment when that is possible."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class StopRequest(BaseException):
    """Leads out of the training; a signal's number, or None where a callback asked for it."""

    def __init__(self, signal_number: int | None):
        self.signal_number = signal_number


class Signals:
    """Remembers a signal until the trainer can answer it, except where it may be answered at once.

    Args:
        on_request: called as soon as the signal comes, from the main thread.
    """

    def __init__(self, on_request: Callable[[], None]):
        self._on_request = on_request
        self._signal_number: int | None = None
        self._at_once = False

    def check(self) -> None:
        """Raise StopRequest if a signal has come."""
        if self._signal_number is not None:
            raise StopRequest(self._signal_number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """While this lasts, a signal ends it where it is: nothing would be lost."""
        self._at_once = True
        try:
            self.check()
            yield
        finally:
            self._at_once = False

    def handle(self, signal_number: int, _: object) -> None:
        """As ``signal.signal`` wants it. The second Ctrl-C does not wait."""
        if self._signal_number is not None:
            if signal_number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self._signal_number = signal_number
        self._on_request()
        if self._at_once:
            self.check()


@contextmanager
def caught_signals(on_request: Callable[[], None]) -> Iterator[Signals]:
    """Turn SIGINT, SIGTERM and a closed terminal into a request that the trainer answers."""
    signals = Signals(on_request)
    if threading.current_thread() is not threading.main_thread():
        yield signals  # Only the main thread can have signal handlers.
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # As nohup leaves it.
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, signals.handle) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
