"""Compiling programs ahead of their first use, in threads, each once. Nothing here knows what the programs do."""

import concurrent.futures
import functools
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple


class Program(NamedTuple):
    """A function to compile.

    Attributes:
      name: its key; programs of the same name are the same program.
      function: pure.
      args: arrays, or their shapes, dtypes and places.
      donate: indices of the arguments whose buffers the outputs may take.
      own: which outputs are each worker's own, see `train.step.parallel.Parallel.compile`.
    """

    name: Hashable
    function: Callable[..., Any]
    args: tuple[Any, ...]
    donate: tuple[int, ...] = ()
    own: Any = False


def named(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """`functools.partial` with a name, which profiles and compilation logs show."""
    program = functools.partial(function, *args, **kwargs)
    program.__name__ = name  # type: ignore[attr-defined]
    return program


class Compiler:
    """Compiled programs by name.

    Args:
      compile: `train.step.parallel.Parallel.compile`, or a function like it.
    """

    def __init__(self, compile: Callable[..., Callable[..., Any]]):
        self._compile = compile
        self._compiled: dict[Hashable, concurrent.futures.Future[Callable[..., Any]]] = {}
        self._claiming, self._tracing = threading.Lock(), threading.Lock()
        self._ahead: list[concurrent.futures.Future[Any]] = []

    @property
    def compilations(self) -> int:
        """Number of programs compiled; waits for those that threads are compiling."""
        concurrent.futures.wait(self._ahead)
        return len(self._compiled)

    def get(self, program: Program) -> Callable[..., Any]:
        """The compiled program: waits for the thread that compiles it, or compiles it here if none does.

        Raises:
          Exception: what tracing or compiling it raised, wherever that was.
        """
        with self._claiming:
            mine = program.name not in self._compiled
            compiled = self._compiled.setdefault(program.name, concurrent.futures.Future())
        if mine:
            try:
                function, args, donate = program.function, program.args, program.donate
                compiled.set_result(self._compile(function, args, donate, own=program.own, tracing=self._tracing))
            except BaseException as error:
                compiled.set_exception(error)
        return compiled.result()

    def call(self, program: Program) -> Any:
        """Runs the program on its arguments."""
        return self.get(program)(*program.args)

    def ahead(self, programs: Sequence[Program], *, wait: bool, done: Callable[[], None]) -> None:
        """Compiles programs two at a time; returns when the first is there.

        An error of another one is raised where that one is used.

        Args:
          programs: the one needed first comes first. Give shapes, not arrays: by the time that a program is traced, an
            earlier one may have taken the buffers.
          wait: return when all are there.
          done: called in a thread when all are there.
        """
        pool = concurrent.futures.ThreadPoolExecutor(2)
        tasks = [pool.submit(self.get, program) for program in programs]

        def finish() -> None:
            concurrent.futures.wait(tasks)
            done()

        self._ahead = [*tasks, pool.submit(finish)]
        pool.shutdown(wait=wait)
        tasks[0].result()
