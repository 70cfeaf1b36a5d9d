"""What the CPU path allocates besides its result stays small, whatever the layer."""

import tracemalloc

import numpy as np
import pytest

import cases
import tconv

MIB = 1 << 20

LAYERS = [
    cases.Case("decoder", "products of 64 MiB", (1, 64, 256, 256), (64, 16, 4, 4),
               {"stride": 2, "padding": 1}),
    cases.Case("vocoder", "weights of 32 MiB", (1, 512, 256), (512, 1024, 16),
               {"stride": 8, "padding": 4}),
    cases.Case("iSTFT", "one output channel", (1, 1026, 224), (1026, 1, 1024), {"stride": 256}),
    cases.Case("volume", "eight phases", (1, 64, 24, 24, 24), (64, 32, 2, 2, 2), {"stride": 2}),
    cases.Case("depthwise", "one input channel a group", (1, 256, 64, 64), (256, 1, 4, 4),
               {"stride": 2, "padding": 1, "groups": 256}),
    cases.Case("large kernel", "961 products for every input", (1, 4, 96, 96), (4, 4, 31, 31),
               {"padding": 15}),
    cases.Case("large batch", "many small maps", (4096, 8, 4, 4), (8, 8, 4, 4),
               {"stride": 2, "padding": 1}),
    cases.Case("stride > kernel", "most outputs are bias only", (1, 4, 128, 128), (4, 32, 1, 1),
               {"stride": 8}),
    cases.Case("far output", "mostly bias", (1, 2, 4, 4), (2, 2, 3, 3),
               {"stride": 2, "padding": ((-500, -500), (-500, -500))}),
    cases.Case("far taps", "outputs far from the only input", (1, 2, 1), (2, 64, 64),
               {"dilation": 1000}),
    cases.Case("small map", "more taps than inputs", (1, 16, 4, 4), (16, 64, 32, 32)),
    cases.Case("one input", "dilated", (1, 16, 1, 1), (16, 64, 7, 7), {"dilation": 16}),
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.dtype("f4"), np.dtype("f2")], ids=str)
@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_extra_memory_is_at_most_64_mib(cpu, monkeypatch, case, dtype, rng):
    monkeypatch.setenv("TCONV_NUM_THREADS", "2")
    x, weight, bias = case.integers(dtype, rng)
    out = cpu(x, weight, bias, **case.call)
    tracemalloc.start()
    try:
        cpu(x, weight, bias, out=out, **case.call)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 64 * MIB


def test_large_inputs_are_not_converted_at_once(cpu, rng):
    """A half-precision input is widened part by part."""
    x = rng.integers(-3, 4, (1, 32, 1 << 18)).astype("f2")
    weight = rng.integers(-3, 4, (32, 2, 2)).astype("f2")
    out = cpu(x, weight, stride=2)
    tracemalloc.start()
    try:
        cpu(x, weight, stride=2, out=out)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * x.nbytes


def test_large_weights_are_not_converted_at_once(monkeypatch):
    """Half-precision weights are widened part by part."""
    monkeypatch.setenv("TCONV_NUM_THREADS", "2")
    x, weight, y = (np.zeros(n, "f2") for n in ((1, 512, 16), (512, 512, 128), (1, 512, 2048)))
    tracemalloc.start()
    try:
        tconv.transposed_conv1d(x, weight, stride=128, out=y)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < weight.nbytes
