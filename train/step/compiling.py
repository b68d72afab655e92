"""Compiling programs ahead of their first use, in threads, each once. Nothing here knows what the programs do."""

import concurrent.futures
import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from train.interface.output import leave

# Seconds between two looks at whether to go on waiting for a program.
LOOK = 0.1
# Threads that are compiling, for all compilers of the process.
_COMPILING: set[int] = set()


class Interrupted(Exception):
    """The wait for a program was given up, see `Compiler.interrupted_by`."""


def end_process(status: int) -> NoReturn:
    """Ends the process with this status, without waiting for threads that compile: nothing can interrupt them."""
    if _COMPILING:
        leave(status)
    sys.exit(status)


class Program(NamedTuple):
    """A function to compile.

    Attributes:
      name: its key; programs of the same name are the same program.
      function: pure.
      args: arrays, or their shapes, dtypes and places.
      donate: indices of the arguments whose buffers the outputs may take.
      own: which outputs are each worker's own, see `train.step.parallel.Parallel.compile`.
      once: it runs once in a process, so fast compilation matters more than fast execution.
    """

    name: Hashable
    function: Callable[..., Any]
    args: tuple[Any, ...]
    donate: tuple[int, ...] = ()
    own: Any = False
    once: bool = False


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
        self._given_up: object = None
        self._abandoned = False

    @property
    def compilations(self) -> int:
        """Number of programs compiled; waits for those that threads are compiling."""
        concurrent.futures.wait(self._ahead)
        return len(self._compiled)

    @property
    def begun(self) -> bool:
        """Whether anything is compiled ahead."""
        return bool(self._ahead)

    @contextlib.contextmanager
    def interrupted_by(self, given_up: object) -> Iterator[None]:
        """Inside the block, `get` and `wait` raise `Interrupted` once `given_up` is true; threads go on compiling.

        Only for the thread that enters the block, and where JAX's settings are those of the process: what a thread has
        set for itself (`with jax.enable_x64(True)`) does not reach the threads that compile.
        """
        self._given_up = given_up
        try:
            yield
        finally:
            self._given_up = None

    def get(self, program: Program) -> Callable[..., Any]:
        """The compiled program: waits for the thread that compiles it, or compiles it here if none does.

        Raises:
          Interrupted: see `interrupted_by`.
          Exception: what tracing or compiling it raised, wherever that was.
        """
        if self._given_up is None:
            return self._get(program)
        pool = concurrent.futures.ThreadPoolExecutor(1)
        found = pool.submit(self._get, program)
        pool.shutdown(wait=False)
        while not concurrent.futures.wait([found], LOOK).done:
            self._look()
        return found.result()

    def _get(self, program: Program) -> Callable[..., Any]:
        with self._claiming:
            mine = program.name not in self._compiled
            compiled = self._compiled.setdefault(program.name, concurrent.futures.Future())
        if mine:
            _COMPILING.add(threading.get_ident())
            try:
                function, args, donate, own, once = program[1:]
                built = self._compile(function, args, donate, own=own, once=once, tracing=self._tracing)
                compiled.set_result(built)
            except BaseException as error:
                compiled.set_exception(error)
            finally:
                _COMPILING.discard(threading.get_ident())
        return compiled.result()

    def call(self, program: Program) -> Any:
        """Runs the program on its arguments."""
        return self.get(program)(*program.args)

    def ahead(self, first: Sequence[Program], then: Sequence[Program], *, done: Callable[[], None]) -> None:
        """Compiles programs in two threads; returns at once.

        An error of a program is raised where it is used.

        Args:
          first: what is needed soonest, in that order. Give shapes, not arrays: by the time that a program is traced,
            an earlier one may have taken the buffers.
          then: begun when all of `first` are there, which it would slow down.
          done: called in a thread when all are there.
        """
        pool = concurrent.futures.ThreadPoolExecutor(2)
        urgent = [pool.submit(self._get, program) for program in first]

        def after(program: Program) -> None:
            concurrent.futures.wait(urgent)
            if not self._abandoned:
                self._get(program)

        tasks = [*urgent, *(pool.submit(after, program) for program in then)]

        def finish() -> None:
            concurrent.futures.wait(tasks)
            done()

        self._ahead = [*tasks, pool.submit(finish)]
        pool.shutdown(wait=False)

    def wait(self) -> None:
        """Waits for all that is compiled ahead."""
        while concurrent.futures.wait(self._ahead, LOOK if self._given_up is not None else None).not_done:
            self._look()

    def _look(self) -> None:
        if self._given_up:
            self._abandoned = True
            for task in self._ahead:
                task.cancel()
            raise Interrupted
