"""Run kernels on the stand-in against the oracle, in a process of its own.

    python -m standin.check KERNEL COUNT [--dtypes ...] [--old TEXT --new TEXT --file NAME]

Exits with 0 if every result is right.  The tests start it with a sanitizer's runtime loaded, and
with faults planted in the kernels' sources: a fault may well end the process.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import cases
import layouts
import oracle
from tconv.gpu.choice import Tile, WarpTile
from tconv.gpu.families import direct, direct_channels_last, gemm, hopper
from tconv.gpu.source import read

from . import Recorder, Standin, refuses

CAPABILITY = {"hopper": 90}
TILES = {
    "gather": None,
    "gemm": Tile(rows=16, columns=8, depth=8, thread_rows=2, thread_columns=8),
    "hopper": hopper.TILES[2],
    "depthwise": None,
    "depthwise_channels_last": None,
    "direct": None,
    "direct_channels_last": None,
    "mma": WarpTile(rows=64, columns=16, depth=64, warp_rows=16, warp_columns=8),
}
WINDOWS = {
    "depthwise": cases.SMALL_GROUPS,
    "depthwise_channels_last": cases.SINGLE_CHANNELS,
    "direct": cases.FEW_OUTPUTS,
    "direct_channels_last": cases.FEW_OUTPUTS,
}
"""Kernels that know the window when they are compiled, with cases of their own."""

CLUSTERED = hopper.TILES[1]
"""A tile whose weights two blocks share, for calls of one axis."""


def parsed(arguments, kernels):
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kernel", choices=kernels)
    parser.add_argument("count", type=int)
    parser.add_argument("--dtypes", nargs="+", default=["f4", "f2", "bfloat16"])
    parser.add_argument("--axes", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--file")
    parser.add_argument("--old")
    parser.add_argument("--new")
    return parser.parse_args(arguments)


def main(arguments):
    given = parsed(arguments, TILES)
    gemm.LONG_SUM = 8  # so that blocks share even the sums of small layers
    direct.WEIGHT_BYTES = 1024  # so that even those have several blocks of channels
    direct_channels_last.INPUT_BYTES = 8 << 10
    texts = {given.file: planted(given.file, given.old, given.new)} if given.file else {}

    capability = CAPABILITY.get(given.kernel, 80)
    calls = list(some_calls(given))
    answers = [oracle.transposed_conv(*arrays, **call) for arrays, call in calls]
    recorder = Recorder(capability=capability)

    def computed(device, number):
        arrays, call = calls[number]
        out = room(given, device, arrays, answers[number]) if number % 2 == 0 else None
        arrays = lying(given, device, arrays, as_they_come=number % 3 == 2)
        return compute(device, given.kernel, *arrays, out=out, **call)

    for number in range(len(calls)):
        computed(recorder, number)
    Standin(texts=texts).prepare(recorder.launched)
    for number, answer in enumerate(answers):
        device = Standin(seed=number, capability=capability, texts=texts)
        y = computed(device, number)
        oracle.assert_exact(y, answer, y.dtype)


def compute(device, kernel, x, weight, bias, **call):
    """Compute with one kernel; float32 on tensor cores is summed of three products of TF32."""
    precision = "tf32x3" if kernel == "mma" and x.dtype == "f4" else None
    tile = CLUSTERED if kernel == "hopper" and weight.ndim == 3 else TILES[kernel]
    return device.verbs(kernel, tile)(x, weight, bias, precision=precision, **call)


def planted(file, old, new):
    """Return a source with a fault in it."""
    text = read(file)
    if text.count(old) != 1:
        raise SystemExit(f"{file} holds {old!r} {text.count(old)} times")
    return text.replace(old, new)


def some_calls(given):
    """Yield arrays and arguments: whole numbers, and an infinity among ones.

    Dtypes take turns from geometry to geometry.
    """
    dtypes = [np.dtype(name) for name in given.dtypes]
    chosen = [case for case in cases.NAMED if 0 not in (*case.x, *case.weight)]
    chosen += [case for case in cases.random_cases(given.count, seed=11) if 0 not in case.x]
    if given.kernel in WINDOWS:
        chosen = [*WINDOWS[given.kernel]]
    if given.kernel == "depthwise":
        random = cases.random_cases(given.count, seed=11)
        chosen += list(filter(cases.has_small_groups, random))[::3]
    if given.kernel == "depthwise_channels_last":
        random = cases.random_cases(3 * given.count, seed=11)
        chosen += filter(cases.has_single_channels, random)
    if given.kernel == "gemm":
        chosen = [*cases.LONG_SUMS, *chosen]
    if given.kernel == "mma":
        random = cases.random_cases(given.count, seed=11)
        chosen = [*cases.WIDE, *(case for case in random if 0 not in case.x)]
    if given.kernel == "hopper":  # Groups so wide that the copy engine stores them.
        chosen += [case for case in cases.WIDE if case.call.get("groups")] + cases.SHARED_WEIGHTS
    chosen = [case for case in chosen if len(case.weight) - 2 in given.axes]
    for number, case in enumerate(chosen):
        rng = np.random.default_rng(number)
        dtype = dtypes[number % len(dtypes)]
        x, weight, bias = case.integers(dtype, rng)
        verb = Recorder().verbs(given.kernel)
        if given.kernel in WINDOWS and refuses(verb, x, weight, **case.call):
            dtype = np.dtype("f4")  # Registers cannot hold the window in the other one.
            x, weight, bias = case.integers(dtype, rng)
        yield (x, weight, bias), case.call
        if len(case.x) == len(case.weight):
            yield (nearest(x, 1), nearest(weight, 0), bias), case.call
        if given.kernel == "mma":
            yield (x, layouts.packed(weight), bias), case.call
        if dtype.kind == "f":
            for place in (0, 1):
                arrays = [np.ones(case.x, dtype), np.ones(case.weight, dtype), None]
                arrays[place].flat[rng.integers(arrays[place].size)] = np.inf
                yield tuple(arrays), case.call


def lying(given, device, arrays, *, as_they_come):
    """Return the arrays on heap blocks of their own, as the kernel wants them.

    Hopper's, if they are left ``as_they_come``, are copied first.
    """
    x, weight, bias = arrays
    if given.kernel == "hopper" and not as_they_come:
        ndim = weight.ndim - 2
        x = layouts.channels_last(x, ndim, device.empty)
        weight = layouts.packed(weight, device.empty)
    else:
        if given.kernel.endswith("channels_last") and x.ndim == weight.ndim:
            x = nearest(x, 1)
        x, weight = exact(device, x), exact(device, weight)
    return x, weight, None if bias is None else exact(device, bias)


def room(given, device, arrays, answer):
    """Return where Hopper's copy engine can store a result."""
    if given.kernel != "hopper":
        return None
    x, weight, _ = arrays
    return layouts.channels_last(np.full(answer.shape, 77, x.dtype), weight.ndim - 2, device.empty)


def nearest(array, axis):
    """Return equal values with one axis nearest in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, axis, -1)), -1, axis)


def exact(device, array):
    """Return an array with the same memory order on a heap block of exactly its size."""
    order = np.argsort([-abs(s) for s in array.strides], kind="stable")
    block = device.empty(tuple(array.shape[a] for a in order), array.dtype)
    copy = block.transpose(np.argsort(order))
    copy[...] = array
    return copy


if __name__ == "__main__":
    main(sys.argv[1:])
