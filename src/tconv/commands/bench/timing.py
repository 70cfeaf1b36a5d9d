"""Seconds of a call, the contenders taking turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

TURN = 0.02
"""Seconds of one turn at least: a quick layer is called several times in it."""


Clock = Callable[[Callable[[], Any], int], float]
"""``(run, calls) -> seconds of a call``."""


def wall_clock(run: Callable[[], Any], calls: int) -> float:
    """Return the seconds of a call."""
    begin = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def alternate(
    runs: Mapping[str, Callable[[], Any]],
    *,
    rounds: int,
    deadline: float,
    clock: Clock = wall_clock,
) -> dict[str, list[float]]:
    """Return the seconds of a call in every round, for each of ``runs``.

    In a round each has one turn, so that whatever else the machine does meets all of them.  The
    rounds end early where the next would not end before ``deadline`` (of `time.perf_counter`), but
    there is always one.
    """
    calls = {name: max(1, round(TURN / clock(run, 1))) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        begin = time.perf_counter()
        for name, run in runs.items():
            seconds[name].append(clock(run, calls[name]))
        end = time.perf_counter()
        if end + (end - begin) > deadline:
            break
    return seconds
