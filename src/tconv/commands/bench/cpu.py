"""The benchmark on the CPU: for every layer answers, then times, then memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from .. import CommandError, num_threads
from . import memory, peers
from .measure import GRADIENTS, Plan, measure
from .peers import GRADIENT_PEERS, PEERS, REFERENCE, TCONV, Factory
from .results import Results, Row
from .suite import Layer, shrink

REFERENCE_PRODUCTS = 200_000_000
"""The most multiplications of zero insertion, which does a hundred million or two in a second."""


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
    most = num_threads()
    if wanted is not None and wanted > most:
        raise CommandError(f"--threads {wanted} is more than the {most} that tconv may use here")
    return most if wanted is None else wanted


def run(layers: Sequence[Layer], plan: Plan, started: Callable[[str], None]) -> Results:
    """Return what the layers cost; ``started`` is told the name of each as its turn comes."""
    results = Results()
    missing = {name: peers.missing_packages(name) for name in PEERS}
    for name, packages in missing.items():
        if packages:
            results.notes.append(f"{name} is not timed: {' and '.join(packages)} not installed")
    forward = {TCONV: peers.ours, **_installed(PEERS, missing)}
    gradients = {TCONV: peers.our_gradients, **_installed(GRADIENT_PEERS, missing)}
    end = time.perf_counter() + plan.seconds
    for done, layer in enumerate(layers):
        started(layer.name)
        begin = time.perf_counter()
        if begin > end:
            results.not_run.append(layer.name)
            continue
        # What is left is shared out evenly, so that quick layers leave some to slow ones.
        tasks = 1 + plan.with_gradients + plan.with_reference
        share = (end - begin) / (len(layers) - done) / tasks
        row = measure(layer, forward, plan, begin + share)
        row.extra_bytes = memory.extra_bytes(layer, plan.dtype.name)
        results.rows.append(row)
        if plan.with_gradients:
            results.gradient_rows.append(
                measure(layer, gradients, plan, time.perf_counter() + share, GRADIENTS)
            )
        if plan.with_reference:
            results.reference_rows.append(
                _against_reference(layer, plan, time.perf_counter() + share)
            )
    return results


def _installed(
    factories: Mapping[str, Factory], missing: Mapping[str, Sequence[str]]
) -> dict[str, Factory]:
    return {name: factory for name, factory in factories.items() if not missing[name]}


def _against_reference(layer: Layer, plan: Plan, deadline: float) -> Row:
    smaller = shrink(layer, REFERENCE_PRODUCTS)
    if smaller is None:
        return Row(layer, plan.dtype.itemsize, refusals={REFERENCE: "too slow at any size"})
    contenders = {TCONV: peers.ours, REFERENCE: peers.reference}
    return measure(smaller, contenders, plan, deadline)
