"""The benchmark on the CPU: for every layer answers, then times, then memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import CommandError
from . import memory, peers
from .peers import PEERS, REFERENCE, TCONV, Factory, Refusal
from .results import Results, Row
from .suite import Layer, arrays, shrink
from .timing import alternate
from .truth import mistakes

REFERENCE_PRODUCTS = 200_000_000
"""The most multiplications of zero insertion, which does a hundred million or two in a second."""


@dataclass(frozen=True)
class Plan:
    """How a run measures."""

    dtype: np.dtype[Any]
    threads: int
    rounds: int
    seconds: float
    with_reference: bool


def environment(threads: int) -> dict[str, str]:
    """Return the variables that the thread pools read when they are loaded.

    All get the same number of threads, and none spins while it waits for work: a thread that spins
    takes a core from whoever is being timed next.  (ONNX Runtime takes both as options.)
    """
    count = str(threads)
    return {
        "TCONV_NUM_THREADS": count,
        "OMP_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        "OPENBLAS_THREAD_TIMEOUT": "4",  # 2**4 cycles, the least that it takes
    }


def thread_count(wanted: int | None) -> int:
    """Return the number of threads for all, by default as many as tconv uses."""
    from ..._cpu.pool import num_threads

    try:
        most = num_threads()
    except ValueError as error:
        raise CommandError(str(error)) from None
    if wanted is not None and wanted > most:
        raise CommandError(f"--threads {wanted} is more than the {most} that tconv may use here")
    return most if wanted is None else wanted


def run(layers: Sequence[Layer], plan: Plan, started: Callable[[str], None]) -> Results:
    """Return what the layers cost; ``started`` is told the name of each as its turn comes."""
    results = Results()
    contenders: dict[str, Factory] = {TCONV: peers.ours}
    for name, peer in PEERS.items():
        missing = peers.missing_packages(name)
        if missing:
            results.notes.append(f"{name} is not timed: {' and '.join(missing)} not installed")
        else:
            contenders[name] = peer
    end = time.perf_counter() + plan.seconds
    for done, layer in enumerate(layers):
        started(layer.name)
        begin = time.perf_counter()
        if begin > end:
            results.not_run.append(layer.name)
            continue
        # What is left is shared out evenly, so that quick layers leave some to slow ones.
        share = (end - begin) / (len(layers) - done)
        row = measure(
            layer, contenders, plan, begin + (share / 2 if plan.with_reference else share)
        )
        row.extra_bytes = memory.extra_bytes(layer, plan.dtype.name)
        results.rows.append(row)
        if plan.with_reference:
            results.reference_rows.append(_against_reference(layer, plan, begin + share))
    return results


def measure(layer: Layer, contenders: Mapping[str, Factory], plan: Plan, deadline: float) -> Row:
    """Check every contender's answer, then time those that were right."""
    row = Row(layer, plan.dtype.itemsize)
    x, weight = arrays(layer, plan.dtype)
    ready, answers = {}, {}
    for name, make in contenders.items():
        try:
            contender = make(layer, x, weight, plan.threads)
            answers[name] = [contender.answer()]
        except Refusal as refusal:
            row.refusals[name] = str(refusal)
            continue
        ready[name] = contender
        if contender.answer_in_poison is not None:
            answers[name].append(contender.answer_in_poison())
    row.mistakes = mistakes(layer, x, weight, answers)
    del answers
    runs = {name: c.run for name, c in ready.items() if name not in row.mistakes}
    row.seconds = alternate(runs, rounds=plan.rounds, deadline=deadline)
    return row


def _against_reference(layer: Layer, plan: Plan, deadline: float) -> Row:
    smaller = shrink(layer, REFERENCE_PRODUCTS)
    if smaller is None:
        return Row(layer, plan.dtype.itemsize, refusals={REFERENCE: "too slow at any size"})
    contenders = {TCONV: peers.ours, REFERENCE: peers.reference}
    return measure(smaller, contenders, plan, deadline)
