"""Notices: what a user should know and need not act on, said through ``logging`` in the logger ``guidedflow``."""

import logging
import sys
import unicodedata

logger = logging.getLogger("guidedflow")


def plain(text: str) -> str:
    """A text without control characters: what a file says must not give orders to the terminal that it is shown on."""
    return "".join("?" if unicodedata.category(character) == "Cc" else character for character in text)


class _StderrHandler(logging.Handler):
    always = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        # Not to the stream of the time when the handler was made: a progress bar replaces it while it is shown.
        sys.stderr.write(f"guidedflow: note: {plain(record.getMessage())}\n")


_HANDLER = _StderrHandler()


def show_notices(*, always: bool = False) -> None:
    """Show notices on standard error, a line each, unless the application has set up logging itself.

    As with any logger, ``logging.getLogger("guidedflow").setLevel(logging.ERROR)`` silences them.

    Args:
        always: show them even then, from now on, as the command line does, which is an application of its own.
    """
    _HANDLER.always = _HANDLER.always or always
    others = [*logger.handlers, *logging.getLogger().handlers]
    is_set_up = any(handler is not _HANDLER and not _is_default(handler) for handler in others)
    logger.propagate = is_set_up
    if _HANDLER.always or not is_set_up:
        logger.addHandler(_HANDLER)  # Once: a handler that is there is not added again.
    else:
        logger.removeHandler(_HANDLER)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)


def _is_default(handler: logging.Handler) -> bool:
    """Whether it is the handler of a bare ``logging.basicConfig()``, which importing Orbax calls."""
    is_plain = getattr(handler.formatter, "_fmt", logging.BASIC_FORMAT) == logging.BASIC_FORMAT
    streams = (sys.stderr, sys.__stderr__)
    return type(handler) is logging.StreamHandler and handler.stream in streams and is_plain
