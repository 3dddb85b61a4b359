"""Notices: what a user should know and need not act on, said through ``logging`` in the logger ``guidedflow``."""

import logging
import sys

logger = logging.getLogger("guidedflow")


class _StderrHandler(logging.Handler):
    always = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, unless the application has set up logging and so shows the notice itself."""
        others = [handler for handler in (*logger.handlers, *logging.getLogger().handlers) if handler is not self]
        if self.always or not others:
            # Not the stream of the time when the handler was made: a progress bar replaces it while it is shown.
            sys.stderr.write(f"guidedflow: note: {record.getMessage()}\n")


_HANDLER = _StderrHandler()


def show_notices(*, always: bool = False) -> None:
    """Show notices on standard error, a line each, unless the application has set up logging itself.

    As with any logger, ``logging.getLogger("guidedflow").setLevel(logging.ERROR)`` silences them.

    Args:
        always: show them even then, as the command line does, which is an application of its own.
    """
    logger.addHandler(_HANDLER)  # Once: a handler that is there is not added again.
    _HANDLER.always = _HANDLER.always or always
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
