"""Compiling ahead: who compiles what, in which order, and what a stop signal finds while it goes on."""

import threading
import time

import pytest

from train.step import compiling
from train.step.compiling import Compiler, Interrupted, Program


class Slow:
    """A stand-in for XLA whose programs compile for as long as they are held."""

    def __init__(self, held=()):
        self.held = {name: threading.Event() for name in held}
        self.began = []

    def __call__(self, function, args, donate, *, own, once, tracing):
        name = function()
        self.began.append(name)
        if name in self.held:
            assert self.held[name].wait(30)
        if name == "broken":
            raise ValueError("broken")
        return lambda *given: (name, *given)

    def release(self):
        for event in self.held.values():
            event.set()


@pytest.fixture
def slow():
    made = Slow(["step", "init"])
    yield made
    made.release()


def program(name):
    return Program(name, lambda: name, ())


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not happen within ten seconds")


def test_what_can_wait_is_begun_when_the_first_programs_are_there(slow):
    compiler = Compiler(slow)
    done = threading.Event()
    compiler.ahead([program(name) for name in ("step", "init", "order")], [program("evaluate")], done=done.set)
    until(lambda: len(slow.began) == 2)
    slow.held["init"].set()
    assert compiler.get(program("order"))() == ("order",)
    assert sorted(slow.began) == ["init", "order", "step"]
    assert not done.is_set()
    slow.held["step"].set()
    assert compiler.compilations == 4
    assert done.wait(10)
    assert slow.began[-1] == "evaluate"


def test_a_program_that_no_thread_has_begun_is_compiled_where_it_is_asked_for(slow):
    compiler = Compiler(slow)
    compiler.ahead([program("step"), program("init")], [program("evaluate")], done=lambda: None)
    until(lambda: len(slow.began) == 2)
    assert compiler.get(program("evaluate"))() == ("evaluate",)
    slow.release()
    assert compiler.compilations == 3
    assert slow.began.count("evaluate") == 1


@pytest.mark.parametrize("ahead", [True, False])
def test_a_stop_signal_ends_the_wait_and_what_has_not_begun(ahead, slow):
    compiler, stop = Compiler(slow), []
    if ahead:
        compiler.ahead([program("step")], [program("evaluate")], done=lambda: None)
    began = time.monotonic()
    threading.Timer(0.3, stop.append, [True]).start()
    with pytest.raises(Interrupted), compiler.interrupted_by(stop):
        compiler.get(program("step"))
    assert 0.2 < time.monotonic() - began < 10
    slow.release()
    assert compiler.get(program("step"))() == ("step",)  # what was begun is finished, and can be used
    assert compiler.compilations == 1


def test_several_devices_wait_for_all_and_are_interrupted_as_well(slow):
    compiler, stop = Compiler(slow), []
    compiler.ahead([program("order")], [program("step")], done=lambda: None)
    threading.Timer(0.3, stop.append, [True]).start()
    with pytest.raises(Interrupted), compiler.interrupted_by(stop):
        compiler.wait()
    slow.release()
    compiler.wait()


def test_an_error_is_raised_where_its_program_is_used(slow):
    compiler = Compiler(slow)
    compiler.ahead([program("order"), program("broken")], [], done=lambda: None)
    with compiler.interrupted_by([]):
        assert compiler.get(program("order"))() == ("order",)
        with pytest.raises(ValueError, match="broken"):
            compiler.get(program("broken"))


def test_a_process_does_not_wait_for_what_is_compiled(slow, monkeypatch):
    compiler, left = Compiler(slow), []
    monkeypatch.setattr(compiling, "_COMPILING", set())  # without threads that earlier tests left behind
    monkeypatch.setattr("os._exit", left.append)
    compiler.ahead([program("step")], [], done=lambda: None)
    until(lambda: slow.began)
    with pytest.raises(SystemExit):  # reached here alone, as the stand-in for os._exit returns
        compiling.end_process(75)
    assert left == [75]
    slow.release()
    compiler.wait()
    with pytest.raises(SystemExit) as ended:
        compiling.end_process(3)
    assert (left, ended.value.code) == ([75], 3)
