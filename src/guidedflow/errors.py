"""The one exception that a user sees: their own mistake, told in one line."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line. It names the file, field or option, says what was expected and what was found, and
    where it can, what to do next. The command line prints it without a traceback and exits with code 2.
    """
