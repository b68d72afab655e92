"""The exceptions that the command lines turn into one line on stderr; anything else keeps its traceback."""


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, and what to do about it. Exit status 2.

    Raised wherever configs, data, flags or a workdir are read.
    """


class UnknownName(UserError, KeyError):
    """A name that is not known; it may be registered by a file that has not been run."""

    __str__ = UserError.__str__


class InUse(UserError):
    """Another process has the directory; later it may not."""


class RunFailed(RuntimeError):
    """A run could not go on, for its numbers or its disk; the message says where it stands. Exit status 1."""


def reason(error: OSError) -> str:
    """The operating system's reason, in words; for an `OSError` raised by a library, the first line of its message."""
    return error.strerror or first_line(error)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
