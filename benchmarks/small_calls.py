"""How long the host works on one small GPU call, from the verb to the launch, in microseconds.

    python benchmarks/small_calls.py

With a GPU: calls on it, one after the other without waiting, beside PyTorch's where that is there.
Without one: the same Python on a device whose kernels do nothing, which leaves out CuPy's own
launch.  The best of several rounds of 1,000 calls, after one that compiles and loads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np

import tconv
from tconv import _api, _dispatch
from tconv.gpu import launch

CALLS, ROUNDS = 1000, 7
WINDOW = {"stride": 2, "padding": 1}


class Nothing:
    """A device on the host whose kernels do nothing."""

    capability = 90
    stream = 0

    def __init__(self):
        self._kernels = {}

    def empty(self, shape, dtype):
        """Return memory of the host."""
        return np.empty(shape, dtype)

    def upload(self, array):
        """Return a copy."""
        return array.copy()

    def address(self, array):  # noqa: ARG002
        """Return an address that suits every kernel."""
        return 0

    def kernel(self, specialisation):
        """Return what launches nothing."""
        return self._kernels.setdefault(specialisation, _nothing)


def _nothing(grid, block, args, *, shared_mem):
    """Launch nothing."""


def calls() -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield what is timed."""
    x, weight = np.ones((1, 4, 4, 4), np.float32), np.ones((4, 4, 4, 4), np.float32)
    bias, out = np.ones(4, np.float32), np.empty((1, 4, 8, 8), np.float32)
    if tconv.gpu.is_available():
        import cupy

        x, weight, bias, out = map(cupy.asarray, (x, weight, bias, out))
        verb = tconv.gpu.transposed_conv2d
        layer = tconv.TransposedConv2d(weight, bias, **WINDOW)
    else:
        device = Nothing()

        def compute(x, weight, bias, geometry, **options):
            return launch.transposed_conv(x, weight, bias, geometry, device=device, **options)

        verb = _api.verbs(lambda _: compute, __name__, "")[1]
        layer = tconv.TransposedConv2d(weight, bias, **WINDOW)
        layer._placed["the CPU"] = _dispatch.Placed(
            compute, launch.packed(weight, device), device.upload(bias)
        )
    yield "function", lambda: verb(x, weight, bias, **WINDOW)
    yield "function, out", lambda: verb(x, weight, bias, out=out, **WINDOW)
    yield "layer", lambda: layer(x)
    yield "layer, out", lambda: layer(x, out=out)
    yield from torch_calls()


def torch_calls():
    """Yield PyTorch's calls: on a GPU the same layer, else its cheapest operator."""
    try:
        import torch
    except ImportError:
        return
    if not torch.cuda.is_available():
        ones = torch.ones(4)
        yield "PyTorch, relu of 4 numbers on the CPU", lambda: torch.relu(ones)
        return
    layer = torch.nn.ConvTranspose2d(4, 4, 4, **WINDOW).cuda()
    x = torch.ones(1, 4, 4, 4, device="cuda")
    with torch.no_grad():
        yield "PyTorch, layer", lambda: layer(x)


def microseconds(call) -> float:
    """Return the time of one call."""
    call()
    best = float("inf")
    for _ in range(ROUNDS):
        begin = perf_counter()
        for _ in range(CALLS):
            call()
        best = min(best, perf_counter() - begin)
        if tconv.gpu.is_available():
            import cupy

            cupy.cuda.Device().synchronize()
    return best / CALLS * 1e6


def main():
    """Print a line for each call."""
    where = "on the GPU" if tconv.gpu.is_available() else "without a GPU: kernels that do nothing"
    print(f"host time of one small call in microseconds, {where}")
    for name, call in calls():
        print(f"{name:<40}{microseconds(call):8.1f}")


if __name__ == "__main__":
    main()
