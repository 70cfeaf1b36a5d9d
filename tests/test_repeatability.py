"""The same call gives the same bits, on the same machine with the same number of threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cases

LARGE = [
    cases.Case("decoder", "", (2, 64, 24, 24), (64, 32, 4, 4), {"stride": 2, "padding": 1}),
    cases.Case("vocoder", "", (1, 128, 200), (128, 64, 16), {"stride": 8, "padding": 4}),
    cases.Case("depthwise", "", (2, 48, 40, 40), (48, 1, 4, 4), {"stride": 2, "groups": 48}),
    cases.Case("volume", "", (1, 16, 8, 8, 8), (16, 8, 3, 3, 3), {"stride": 2}),
]


def bits(array):
    return np.ascontiguousarray(array).view(np.uint8)


@pytest.mark.parametrize("case", [*LARGE, *cases.random_cases(60, seed=9)], ids=str)
def test_twice_the_same_call_gives_twice_the_same_bits(conv, case, rng):
    if conv.module.__name__ == "tconv.reference" and case in LARGE:
        case = cases.random_cases(1, seed=10)[0]
    for dtype in (np.dtype("f4"), np.dtype("f2"), np.dtype("c16")):
        x, weight, bias = case.reals(dtype, rng)
        first = conv(x, weight, bias, **case.call)
        for _ in range(3):
            np.testing.assert_array_equal(bits(conv(x, weight, bias, **case.call)), bits(first))


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_memory_before_the_call_has_no_influence(cpu, case, rng):
    """Scratch and output memory is reused from one call to the next, whatever it holds."""
    x, weight, bias = case.reals(np.dtype("f4"), rng)
    first = cpu(x, weight, bias, **case.call)
    poisoned = np.full_like(x, np.nan), np.full_like(weight, np.nan), np.full_like(bias, np.nan)
    cpu(*poisoned, **case.call)
    np.testing.assert_array_equal(bits(cpu(x, weight, bias, **case.call)), bits(first))


def test_calls_from_several_threads_do_not_disturb_each_other(cpu, rng):
    jobs = [(case, case.reals(np.dtype("f4"), rng)) for case in LARGE] * 4
    alone = [cpu(*arrays, **case.call) for case, arrays in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: cpu(*job[1], **job[0].call), jobs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(bits(one), bits(other))
