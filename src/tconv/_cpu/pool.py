"""Threads over independent pieces of work, with one BLAS thread inside each.

NumPy lets go of the interpreter lock in its loops and in BLAS, so plain threads are enough.  The
calling thread works too and never waits for a helper that has not begun: a call from inside a
busy pool, ours or the user's, cannot lock up.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

import numpy as np

T = TypeVar("T")
S = TypeVar("S")

VARIABLE = "TCONV_NUM_THREADS"


def num_threads() -> int:
    """Return how many threads a call may use: ``TCONV_NUM_THREADS``, or all there are."""
    allowed = _allowed()
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return allowed
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise ValueError(f"{VARIABLE}={text!r} must be a whole number of threads, at least 1")
    return min(int(text), allowed)


def for_each(
    function: Callable[[T, S], None], items: Iterable[T], workspace: Callable[[], S]
) -> None:
    """Call ``function(item, workspace)`` for every item, in any order, on `num_threads`.

    Each thread makes one `workspace` for itself.  If a call raises, no further item is begun.
    """
    threads = num_threads()
    todo = iter(items)
    first = list(islice(todo, 2))
    work = _Work(function, chain(first, todo), workspace)
    if not _BLAS.found:
        work.drain()
        return
    helpers = threads - 1 if len(first) > 1 else 0
    with _BLAS.single_threaded():
        running = list(_begin(work.drain, helpers))
        try:
            work.drain()
        finally:
            begun = [future for future in running if not future.cancel()]
            errors = [future.exception() for future in begun]
    for error in errors:
        if error is not None:
            raise error


def _begin(task: Callable[[], None], helpers: int) -> Iterator[Future[None]]:
    """Hand `task` to helpers, or to fewer where no thread can begin: at exit, or at a limit."""
    with suppress(RuntimeError):
        for _ in range(helpers):
            yield _executor().submit(task)


class _Work:
    """Items that several threads take one after the other."""

    def __init__(
        self, function: Callable[[T, S], None], items: Iterator[T], workspace: Callable[[], S]
    ) -> None:
        self._run: Callable[[object, object], None] = function  # type: ignore[assignment]
        self._items: Iterator[object] = items
        self._workspace: Callable[[], object] = workspace
        self._lock = threading.Lock()

    def drain(self) -> None:
        """Work on items until there are no more."""
        workspace = self._workspace()
        # Infinities and NaNs of the user's data are no news, and warnings are set per thread.
        with np.errstate(all="ignore"):
            try:
                while True:
                    with self._lock:
                        item = next(self._items, self)
                    if item is self:
                        return
                    self._run(item, workspace)
            except BaseException:
                with self._lock:
                    self._items = iter(())
                raise


def _allowed() -> int:
    """Return the processors that this process may use: by affinity, and by its cgroup's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return max(1, min(count, _quota()))


@cache
def _quota(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many processors the cgroup's quota is worth, or many where there is none."""
    for files in (["cpu.max"], ["cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"]):
        try:
            text = " ".join((root / name).read_text() for name in files)
            quota, period = map(int, text.split())
        except (OSError, ValueError):
            continue
        if quota > 0 and period > 0:
            return max(1, quota // period)
    return 1 << 16


class _Blas:
    """The OpenBLAS that comes with NumPy, whose number of threads can be limited.

    The limit belongs to the whole process, so overlapping calls share it: the first sets it, the
    last restores what was there before.  With another BLAS nothing is `found`, and its own threads
    do all the work.
    """

    _NAMES = (
        "scipy_openblas_{}_num_threads64_",
        "scipy_openblas_{}_num_threads",
        "openblas_{}_num_threads64_",
        "openblas_{}_num_threads",
    )

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._before = 1
        self.found = False
        try:
            # Symbols are looked up in a library and in those that it links to.  This one has the
            # same name in NumPy 1 and 2.
            library = ctypes.CDLL(np.linalg._umath_linalg.__file__)
        except (AttributeError, OSError):
            return
        for name in self._NAMES:
            if hasattr(library, name.format("get")) and hasattr(library, name.format("set")):
                self._get = getattr(library, name.format("get"))
                self._set = getattr(library, name.format("set"))
                self.found = True
                return

    @contextmanager
    def single_threaded(self) -> Iterator[None]:
        with self._lock:
            if self._calls == 0:
                self._before = self._get()
                self._set(1)
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if self._calls == 0:
                    self._set(self._before)

    def after_fork(self) -> None:
        """Begin with no calls under way: the child's only thread has none."""
        self._lock = threading.Lock()
        if self._calls:
            self._calls = 0
            self._set(self._before)


_BLAS = _Blas()


@cache
def _executor() -> ThreadPoolExecutor:
    """Return the helpers of this process, begun when first needed; Python joins them at exit."""
    return ThreadPoolExecutor(max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="tconv")


def _after_fork() -> None:
    """Forget the parent's helpers, for threads do not survive a fork."""
    _executor.cache_clear()
    _BLAS.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
