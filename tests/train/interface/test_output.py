"""Nothing beside the numbers ends a command: streams that are closed, full or gone, and errors of drawings and logs."""

import io
import os
import subprocess
import sys

import pytest

from train.interface.output import Extras, TolerantStream, tolerant_output


class Broken(io.StringIO):
    """A stream whose every write fails."""

    def __init__(self, error, *, terminal=False):
        super().__init__()
        self._error, self._terminal = error, terminal

    def isatty(self):
        return self._terminal

    def write(self, text):
        raise self._error

    def flush(self):
        raise self._error


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "a full disk": lambda: Broken(OSError(28, "No space left on device")),
    "a reader that has gone": lambda: Broken(BrokenPipeError(32, "Broken pipe")),
    "a terminal that hung up": lambda: Broken(OSError(5, "Input/output error"), terminal=True),
    "closed": closed,
}


@pytest.mark.parametrize("case", STREAMS)
def test_what_cannot_be_written_is_lost(case):
    stream = TolerantStream(STREAMS[case]())
    print("a line", file=stream, flush=True)
    stream.settle()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_cannot_be_encoded_is_escaped(encoding):
    data = io.BytesIO()
    stream = TolerantStream(io.TextIOWrapper(data, encoding=encoding))
    print("a – b \udcff 复", file=stream, flush=True)
    assert data.getvalue().startswith(b"a ")
    assert rb"\udcff" in data.getvalue()
    assert "复" in data.getvalue().decode("unicode_escape" if encoding != "utf-8" else "utf-8")


SAYS = """
import sys
from train.interface.output import tolerant_output
with tolerant_output():
    for number in range(3):
        print("line", number)
        print("line", number, file=sys.stderr, flush=True)
    with open({path!r}, "w") as file:
        file.write("precious")
"""


@pytest.mark.parametrize("redirections", [">/dev/full", "2>/dev/full", ">&- 2>&-", "<&- >&-", ">&- 2>/dev/full"])
def test_a_command_ends_well_whatever_its_output_is(redirections, tmp_path):
    path = tmp_path / "file"
    command = [
        "bash",
        "-c",
        f'exec "$@" {redirections}',
        "bash",
        sys.executable,
        "-S",
        "-c",
        SAYS.format(path=str(path)),
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert path.read_text() == "precious"


def test_a_command_whose_reader_ends_early_ends_well(tmp_path):
    code = SAYS.format(path=str(tmp_path / "file"))
    command = ["bash", "-c", 'set -o pipefail; "$@" 2>&1 | head -1', "bash", sys.executable, "-S", "-c", code]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0


def test_output_that_was_missing_when_python_started(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with tolerant_output():
        print("a line")
        print("a line", file=sys.stderr)
    assert sys.stdout is None


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left"), ImportError("no module"), RuntimeError("line 1\nline 2")]
)
def test_an_error_beside_the_numbers_is_one_warning_and_remembered_until_it_works_again(error, caplog):
    extras = Extras()
    for _ in range(3):
        with extras.best_effort("curves.png"):
            raise error
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().count("\n") == 0
    assert "curves.png" in extras.missing
    with extras.best_effort("curves.png"):
        pass
    assert extras.missing == {}


def test_an_interrupt_is_no_error_beside_the_numbers():
    with pytest.raises(KeyboardInterrupt), Extras().best_effort("curves.png"):
        raise KeyboardInterrupt
