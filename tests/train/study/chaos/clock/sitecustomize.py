"""A wall clock that is off: Python imports this at its start wherever this folder is on PYTHONPATH.

The file named by CHAOS_CLOCK says by how many seconds. It is read at each call, so that the clock of a process can be
set back while it runs. All that a study writes down of the time it reads through `time`, so no library has to be
preloaded for that; monotonic clocks stay as they are, as they do when a machine's clock is set.
"""

import functools
import os
import time

_time, _time_ns = time.time, time.time_ns


def offset() -> float:
    """Seconds that the clock is off; 0 while the file is missing, or is just being written."""
    try:
        with open(os.environ["CHAOS_CLOCK"], encoding="ascii") as file:
            return float(file.read())
    except (KeyError, OSError, ValueError):
        return 0.0


def of_that_clock(function):
    """A conversion whose seconds, if not given, are those of this clock."""

    @functools.wraps(function)
    def convert(seconds=None):
        return function(time.time() if seconds is None else seconds)

    return convert


def strftime(form, when=None, _strftime=time.strftime):
    return _strftime(form, time.localtime() if when is None else when)


time.time = lambda: _time() + offset()
time.time_ns = lambda: _time_ns() + int(offset() * 1e9)
time.localtime, time.gmtime = of_that_clock(time.localtime), of_that_clock(time.gmtime)
time.strftime = strftime
