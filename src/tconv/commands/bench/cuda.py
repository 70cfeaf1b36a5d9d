"""The current CUDA device: its clock, its ceilings, and who computes on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np

import tconv

from ..._config import versions
from ...gpu import compile
from .peers import Arrays, Contender, Factory, from_tensor, missing_packages, tensor, torch_call
from .suite import Array, Layer

COPIED = 1 << 30
"""Bytes of the buffer whose copy is timed."""

ROWS = 8192
"""Rows of the matrices whose product is timed."""

MOST_COPIES = 64
"""Of the inputs, which are rotated so that none is in a cache."""


class Cuda:
    """What `gpu.run` needs of a machine."""

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        self.name: str = properties["name"].decode()
        self.capability = 10 * int(properties["major"]) + int(properties["minor"])
        self._cache_bytes = int(properties["l2CacheSize"])
        self.has_pytorch = not missing_packages("PyTorch")

    def facts(self) -> dict[str, Any]:
        """Return what a reader must know of the machine to compare its figures."""
        cuda = self._cupy.cuda
        facts = {
            "device": self.name,
            "driver": cuda.runtime.driverGetVersion(),
            "CUDA": cuda.runtime.runtimeGetVersion(),
            "NVRTC": compile.version(),
            "versions": versions(),
        }
        if self.has_pytorch:
            import torch

            facts["PyTorch"] = torch.__version__
            facts["cuDNN"] = torch.backends.cudnn.version()
        return facts

    def seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Return the seconds of a call, by the device's clock."""
        cuda = self._cupy.cuda
        begin, end = cuda.Event(), cuda.Event()
        cuda.Device().synchronize()
        begin.record()
        for _ in range(calls):
            run()
        end.record()
        end.synchronize()
        return float(cuda.get_elapsed_time(begin, end)) / 1e3 / calls

    def ceilings(self, variants: Sequence[str]) -> dict[str, float]:
        """Return bytes a second of a copy, and operations a second of matrix products."""
        source = self._cupy.ones(COPIED, np.uint8)
        target = self._cupy.empty_like(source)
        found = {"copy": 2 * COPIED / self._least(partial(self._cupy.copyto, target, source))}
        if self.has_pytorch:
            found |= {variant: self._matrix_product(variant) for variant in variants}
        return found

    def _matrix_product(self, variant: str) -> float:
        import torch

        # Three products of TF32 make one of float32.
        dtype, share = {"tf32": ("float32", 1), "tf32x3": ("float32", 3)}.get(variant, (variant, 1))
        torch.backends.cuda.matmul.allow_tf32 = variant.startswith("tf32")
        shape = ROWS, ROWS
        a, b = (torch.randn(shape, device="cuda").to(getattr(torch, dtype)) for _ in range(2))
        return 2 * ROWS**3 / self._least(lambda: a @ b) / share

    def _least(self, run: Callable[[], Any]) -> float:
        run()
        return min(self.seconds(run, 3) for _ in range(5))

    def contenders(self, layer: Layer, variant: str, *, gradients: bool) -> dict[str, Factory]:
        """Return tconv and every mode of PyTorch, in both memory orders.

        Raises an error where a kernel has gone wrong before: nothing runs in this process any more.
        """
        self._cupy.cuda.Device().synchronize()
        found: dict[str, Factory] = {}
        for order in ("NCHW", "channels last") if layer.ndim > 1 else ("NCHW",):
            last = order == "channels last"
            if gradients:
                found[f"tconv {order}"] = partial(self._our_gradients, last)
            else:
                found[f"tconv {order}"] = partial(self._our_verb, last, precision(variant))
                found[f"tconv layer {order}"] = partial(self._our_layer, last, precision(variant))
            for tuned in (False, True) if self.has_pytorch else ():
                name = f"PyTorch {order}{' tuned' if tuned else ''}"
                found[name] = partial(self._pytorch, last, tuned, variant == "tf32")
        return found

    def _our_verb(
        self, last: bool, precision: str | None, layer: Layer, arrays: Arrays, _: int
    ) -> Contender:
        verb = partial(
            getattr(tconv.gpu, f"transposed_conv{layer.ndim}d"),
            **layer.arguments,
            precision=precision,
        )
        sets = self._rotated(self._there(arrays, last))

        def answer_in_poison() -> tuple[Array, ...]:
            return (self._host(verb(*next(sets), out=self._poison(layer, arrays))),)

        return Contender(lambda: verb(*next(sets)), self._host, answer_in_poison)

    def _our_layer(
        self, last: bool, precision: str | None, layer: Layer, arrays: Arrays, _: int
    ) -> Contender:
        x, weight = self._there(arrays, last)
        made = getattr(tconv, f"TransposedConv{layer.ndim}d")(
            weight, **layer.arguments, precision=precision
        )
        sets = self._rotated([x, made(x)])

        def run() -> Any:
            x, out = next(sets)
            return made(x, out=out)

        def answer_in_poison() -> tuple[Array, ...]:
            return (self._host(made(x, out=self._poison(layer, arrays))),)

        return Contender(run, self._host, answer_in_poison)

    def _our_gradients(self, last: bool, layer: Layer, arrays: Arrays, _: int) -> Contender:
        verb = getattr(tconv.gpu, f"transposed_conv{layer.ndim}d_backward")
        sets = self._rotated(self._there(arrays, last))
        return Contender(lambda: verb(*next(sets), **layer.arguments), self._host)

    def _pytorch(
        self, last: bool, tuned: bool, tf32: bool, layer: Layer, arrays: Arrays, _: int
    ) -> Contender:
        import torch

        nearest = torch.channels_last_3d if layer.ndim == 3 else torch.channels_last
        order = nearest if last else torch.contiguous_format
        tensors = [tensor(array).cuda().to(memory_format=order) for array in arrays]
        sets = self._rotated(tensors, torch.Tensor.clone)
        call = torch_call(layer, gradients=len(arrays) == 3)

        def run() -> Any:
            torch.backends.cudnn.benchmark = tuned
            torch.backends.cudnn.allow_tf32 = tf32
            return call(*next(sets))

        return Contender(run, lambda result: from_tensor(result.cpu()))

    def _there(self, arrays: Arrays, last: bool) -> list[Any]:
        """Return arrays on the device; all but the weight with channels nearest, if wanted."""
        *others, weight = map(self._put, arrays)
        return [self._channels_last(array) if last else array for array in others] + [weight]

    def _put(self, array: Array) -> Any:
        if array.dtype.name == "bfloat16":  # CuPy copies it as what it knows
            return self._cupy.asarray(array.view(np.int16)).view(array.dtype)
        return self._cupy.asarray(array)

    def _channels_last(self, array: Any) -> Any:
        last = self._cupy.moveaxis(array, 1, -1)
        return self._cupy.moveaxis(self._cupy.ascontiguousarray(last), -1, 1)

    def _host(self, array: Any) -> Array:
        if array.dtype.name == "bfloat16":
            bits: Array = self._cupy.asnumpy(array.view(np.int16))
            return bits.view(array.dtype)
        host: Array = self._cupy.asnumpy(array)
        return host

    def _poison(self, layer: Layer, arrays: Arrays) -> Any:
        return self._put(np.full(layer.geometry.out_shape, np.nan, arrays[0].dtype))

    def _rotated(
        self, arrays: list[Any], copy: Callable[[Any], Any] = lambda array: array.copy(order="K")
    ) -> Iterator[list[Any]]:
        """Return the arrays and copies of them in turn, so that none is still in a cache."""
        enough = -(-2 * self._cache_bytes // max(1, sum(array.nbytes for array in arrays)))
        copies = range(min(max(1, enough), MOST_COPIES))
        return cycle([[copy(array) for array in arrays] for _ in copies])


def precision(variant: str) -> str | None:
    """Return what tconv is asked for: a variant is a dtype, or a precision of float32."""
    return variant if variant.startswith("tf32") else None
