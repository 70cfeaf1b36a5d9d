"""Run kernels of the adjoint and of the gradients on the stand-in against the oracle.

    python -m standin.check_gradients KERNEL COUNT ...

As `standin.check`, and with the same arguments.
"""

from __future__ import annotations

import sys

import numpy as np

import cases
import oracle
from tconv.gpu import splits
from tconv.gpu.choice import Tile
from tconv.gpu.families import direct, direct_channels_last
from test_conv import arguments
from test_gradients import answers, whole

from . import Recorder, Standin, check, refuses
from .check import exact, parsed, planted

SMALL = Tile(rows=16, columns=8, depth=4, thread_rows=2, thread_columns=2)
KERNELS = {
    "gather, adjoint": ("gather", None),
    "gemm, adjoint": ("gemm", SMALL),
    **{f"{kernel}, adjoint": (kernel, None) for kernel in check.WINDOWS},
    "weight_gradient": ("weight_gradient", SMALL),
    "weight_gradient_narrow": ("weight_gradient_narrow", None),
}
WINDOWS = {f"{kernel}, adjoint": own for kernel, own in check.WINDOWS.items()}

LONG = [
    cases.Case("long", "several splits, sums added in runs",
               (1, 2, 3001), (2, 3, 3), {"stride": 2, "padding": 1}),
    cases.Case("depthwise", "lanes along the groups",
               (1, 40, 21, 17), (40, 1, 3, 3), {"stride": 2, "groups": 40}),
]  # fmt: skip


def main(given_arguments):
    given = parsed(given_arguments, KERNELS)
    splits.ENOUGH = 4  # blocks: so that even here sums are long enough to be added in runs
    direct.WEIGHT_BYTES = 1024  # so that even small layers have several blocks of channels
    direct_channels_last.INPUT_BYTES = 8 << 10
    texts = {given.file: planted(given.file, given.old, given.new)} if given.file else {}
    problems = list(some_problems(given))
    recorder = Recorder()
    for case, arrays, _ in problems:
        compute(recorder, given.kernel, case, arrays)
    Standin(texts=texts).prepare(recorder.launched)
    for number, (case, arrays, expected) in enumerate(problems):
        device = Standin(seed=number, texts=texts)
        results = compute(device, given.kernel, case, [exact(device, a) for a in arrays])
        for result, answer in zip(results, expected, strict=True):
            oracle.assert_exact(result, answer, arrays[0].dtype)


def compute(device, kernel, case, arrays):
    """Return what the kernel is there for."""
    y, x, weight = arrays
    forced = KERNELS[kernel]
    if "adjoint" in kernel:
        return [device.conv(*forced)(y, weight, **arguments(case))]
    mask = (False, True, True)
    return device.backward(*forced)(y, x, weight, output_mask=mask, **case.call)[1:]


def some_problems(given):
    """Yield cases, arrays and the right results: whole numbers, and an infinity among ones."""

    def right(arrays):
        y, x, weight = arrays
        conjugate = weight.conj() if weight.dtype.kind == "c" else weight
        grads = answers(y, x, conjugate, **case.call)
        return grads[:1] if "adjoint" in given.kernel else grads[1:]

    dtypes = [np.dtype(name) for name in given.dtypes]
    chosen = [case for case in cases.NAMED if 0 not in (*case.x, *case.weight)]
    chosen += [case for case in cases.random_cases(given.count, seed=12) if 0 not in case.x]
    chosen = WINDOWS.get(given.kernel, [*chosen, *LONG])
    chosen = [case for case in chosen if len(case.weight) - 2 in given.axes]
    for number, case in enumerate(chosen):
        rng = np.random.default_rng(number)
        dtype = dtypes[number % len(dtypes)]
        x, weight, _ = case.integers(dtype, rng)
        y = whole(oracle.transposed_conv(x, weight, **case.call).shape, dtype, rng)
        if given.kernel in WINDOWS:
            conv = Recorder().conv(*KERNELS[given.kernel])
            if refuses(conv, y, weight, **arguments(case)):  # Registers cannot hold the window.
                continue
        yield case, (y, x, weight), right((y, x, weight))
        if len(case.x) == len(case.weight):
            last = [np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) for a in (y, x)]
            yield case, (*last, weight), right((y, x, weight))
        if dtype.kind == "f":
            yield (
                case,
                *with_infinity([np.ones(a.shape, dtype) for a in (y, x, weight)], right, rng),
            )


def with_infinity(arrays, right, rng):
    """Return ones with an infinity among them, and what is right then."""
    place = rng.integers(3)
    without = [np.zeros(a.shape) if i == place else np.ones(a.shape) for i, a in enumerate(arrays)]
    alone = [a.copy() for a in without]
    at = rng.integers(arrays[place].size)
    alone[place].flat[at] = 1
    results = map(right, (arrays, alone, without))
    expected = [np.where(a > w, np.inf, f) for f, a, w in zip(*results, strict=True)]
    arrays[place].flat[at] = np.inf
    return arrays, expected


if __name__ == "__main__":
    main(sys.argv[1:])
