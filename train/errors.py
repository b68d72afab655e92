"""The one exception that the command lines turn into one line on stderr and exit status 2."""


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, and what to do about it.

    Raised wherever configs, data, flags or a workdir are read. Anything else that escapes is a defect
    of ours and keeps its traceback.
    """
