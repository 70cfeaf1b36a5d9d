"""Check every contender's answer on one layer, then time those that were right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import samples, truth
from .peers import Arrays, Factory, first_line
from .results import Row
from .suite import Layer, arrays, gradient_arrays
from .timing import Clock, alternate, wall_clock


@dataclass(frozen=True)
class Plan:
    """How a run measures."""

    dtype: np.dtype[Any]
    threads: int
    rounds: int
    seconds: float
    with_reference: bool = False
    with_gradients: bool = False


class Task(NamedTuple):
    """What is computed on a layer: from which arrays, and whose answers are wrong."""

    arrays: Callable[[Layer, np.dtype[Any]], Arrays]
    mistakes: Callable[..., dict[str, str]]


FORWARD = Task(arrays, truth.mistakes)
SAMPLED = Task(arrays, samples.output_mistakes)
GRADIENTS = Task(gradient_arrays, samples.gradient_mistakes)


def measure(
    layer: Layer,
    contenders: Mapping[str, Factory],
    plan: Plan,
    deadline: float,
    task: Task = FORWARD,
    clock: Clock = wall_clock,
) -> Row:
    """Return a row with the seconds of each, or why it has none."""
    row = Row(layer, plan.dtype.itemsize)
    given = task.arrays(layer, plan.dtype)
    ready, answers = {}, {}
    for name, make in contenders.items():
        try:
            contender = make(layer, given, plan.threads)
            found = [contender.answer()]
            if contender.answer_in_poison is not None:
                found.append(contender.answer_in_poison())
        except Exception as error:  # libraries raise what they like
            row.refusals[name] = first_line(error)
            continue
        ready[name], answers[name] = contender, found
    row.mistakes = task.mistakes(layer, given, answers)
    del answers
    runs = {name: c.run for name, c in ready.items() if name not in row.mistakes}
    row.seconds = alternate(runs, rounds=plan.rounds, deadline=deadline, clock=clock)
    return row
