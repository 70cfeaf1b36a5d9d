"""Transposed convolutions with fixed weights, packed once for each place where they compute."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Any, SupportsIndex

from . import _check, _dispatch
from ._api import Array, Ints, Padding, computed, fitted, library


class _Layer:
    """What the layers of one, two and three axes have in common."""

    _ndim: int

    def __init__(
        self,
        weight: Any,
        bias: Any = None,
        *,
        stride: Ints = 1,
        padding: Padding = 0,
        output_padding: Ints = 0,
        dilation: Ints = 1,
        groups: SupportsIndex = 1,
        activation: str | None = None,
        precision: str | None = None,
    ) -> None:
        library({"weight": weight}, bias=bias)
        _check.activation(activation, weight)
        _check.precision(precision, weight)
        self._window = _check.layer(
            self._ndim,
            weight,
            bias,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            dilation=dilation,
            groups=groups,
        )
        self._weight = _dispatch.kept(weight)
        self._bias = None if bias is None else _dispatch.kept(bias)
        self._options: dict[str, Any] = {"activation": activation, "precision": precision}
        self._placed: dict[str, _dispatch.Placed] = {}
        self._lock = Lock()

    @property
    def weight(self) -> Any:
        """The weight, ``(C, M // groups, *kernel_size)``: a NumPy array that cannot be written."""
        return self._weight

    @property
    def bias(self) -> Any:
        """The bias, ``(M,)``: a NumPy array that cannot be written, or None."""
        return self._bias

    def __call__(
        self, x: Array, *, output_size: Ints | None = None, out: Array | None = None
    ) -> Array:
        """Compute where ``x`` is.

        Parameters
        ----------
        x : array, shape (N, C, *in_size) or (C, *in_size)
            Input, a NumPy or CuPy array of the weight's dtype.
        output_size : int or one int per axis, optional
            The wanted output size, instead of the layer's ``output_padding``.
        out : array, shape of the result, optional
            Written and returned; any strides, no memory in common with ``x``.

        Returns
        -------
        array, shape (N, M, *out_size) or (M, *out_size)
            As the function of the same window returns it.

        Raises
        ------
        TypeError, ValueError
            As that function does.
        """
        kind = library({"x": x}, out=out)
        _check.dtypes({"x": x, "weight": self._weight})
        _check.axes(self._ndim, x, self._weight)
        window = self._window
        if output_size is not None:
            window = _check.resized(window, output_size)
        geometry = fitted(window, x, self._weight, self._bias)
        place = _dispatch.device(x)
        placed = self._placed.get(place) or self._place(place, kind, x)
        result: Array = computed(
            placed.compute, x, placed.weight, placed.bias, geometry, out=out, **self._options
        )
        return result

    def _place(self, place: str, kind: str, x: Any) -> _dispatch.Placed:
        with self._lock:
            if place not in self._placed:
                self._placed[place] = _dispatch.own_placing(kind)(self._weight, self._bias, x)
            return self._placed[place]

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        # Made anew from its arguments: what lies on a device stays there.
        window = self._window._asdict()
        del window["output_size"]
        return partial(type(self), **window, **self._options), (self._weight, self._bias)

    def __repr__(self) -> str:
        facts = [f"{self._weight.dtype} {self._weight.shape}"]
        if self._bias is not None:
            facts.append("bias")
        told = {**_spelled(self._window), **self._options}
        facts += [f"{name}={value!r}" for name, value in told.items() if value is not None]
        return f"{type(self).__name__}({', '.join(facts)})"


def _spelled(window: _check.Window) -> dict[str, Any]:
    """Return a window as one would write it: the short way, and without what is usual."""
    padding: Any = window.padding
    if all(isinstance(pad, tuple) and pad[0] == pad[1] >= 0 for pad in padding):
        padding = _short(tuple(begin for begin, _ in padding))
    spelled = {
        "stride": _short(window.stride),
        "padding": padding,
        "output_padding": _short(window.output_padding),
        "dilation": _short(window.dilation),
        "groups": window.groups,
    }
    usual = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}
    return {name: value for name, value in spelled.items() if value != usual[name]}


def _short(values: tuple[int, ...]) -> int | tuple[int, ...]:
    return values[0] if len(set(values)) == 1 else values


_DOC = """\
{summary}

Parameters
----------
weight : array, shape (C, M // groups, {taps})
    Kernel, not flipped, as for `transposed_conv{ndim}d`; a NumPy or CuPy array.  The layer keeps a
    copy in the host's memory, so what is written into the array afterwards does not change it.
bias : array, shape (M,), optional
    Added to every output of its channel; the layer keeps a copy.
stride, padding, output_padding, dilation, groups, activation, precision
    As for `transposed_conv{ndim}d`.

Raises
------
TypeError, ValueError
    As `transposed_conv{ndim}d` does, as far as that can be told before there is an input.

Notes
-----
``layer(x)`` computes where ``x`` is, and gives what the function gives.  Threads, streams and
devices may share a layer.  A pickled layer holds nothing of any device.

On a GPU, the first call copies weight and bias to the device, with the output channels nearest in
memory, and waits until they are there.  It may also compile.  Later calls like it on the same
stream, given ``out``, allocate nothing, so that a CUDA graph can capture them:

    with stream:
        layer(x, out=out)  # once before
        stream.begin_capture()
        layer(x, out=out)
        graph = stream.end_capture()

The graph uses these very arrays, and memory of the layer's: keep all three as long as it may run,
on whatever stream.  That memory holds parts of long sums that blocks share, and copies, where
`tconv.gpu.plan` tells of any; calls of one stream and thread have the same.  So two such graphs
that were captured there, or a graph and a call, must not run at the same time.  As with any array
of CuPy's, if other streams read the weights than the one of the first call, keep the layer until
they have done.

An ``x`` or ``out`` whose first element lies at an address that the kernel cannot use is copied, for
which memory is allocated; CuPy's own allocations lie well.

Examples
--------
{example}"""

_EXAMPLES = {
    1: """\
>>> import numpy as np
>>> from tconv import TransposedConv1d
>>> layer = TransposedConv1d(np.array([[[1, 2, 3]]]), stride=2)
>>> layer
TransposedConv1d(int64 (1, 1, 3), stride=2)
>>> layer(np.array([[[1, 10, 100]]]))
array([[[  1,   2,  13,  20, 130, 200, 300]]])
>>> layer(np.array([[[1, 10, 100]]]), output_size=8)
array([[[  1,   2,  13,  20, 130, 200, 300,   0]]])
""",
    2: """\
The last layer of a decoder, from 4 to 3 channels, for images of any size:

>>> import numpy as np
>>> from tconv import TransposedConv2d
>>> weight, bias = np.ones((4, 3, 4, 4), np.float32), np.zeros(3, np.float32)
>>> layer = TransposedConv2d(weight, bias, stride=2, padding=1, activation="relu")
>>> layer
TransposedConv2d(float32 (4, 3, 4, 4), bias, stride=2, padding=1, activation='relu')
>>> layer(np.ones((8, 4, 16, 16), np.float32)).shape
(8, 3, 32, 32)
>>> layer(np.ones((4, 20, 30), np.float32)).shape
(3, 40, 60)
""",
    3: """\
A volume of one voxel becomes the kernel:

>>> import numpy as np
>>> from tconv import TransposedConv3d
>>> layer = TransposedConv3d(np.arange(1, 9).reshape(1, 1, 2, 2, 2), stride=2)
>>> layer(np.full((1, 1, 1, 1, 1), 10))[0, 0]
array([[[10, 20],
        [30, 40]],
<BLANKLINE>
       [[50, 60],
        [70, 80]]])
""",
}


def _documented(layer: type[_Layer]) -> None:
    ndim = layer._ndim
    taps = ", ".join(f"K{axis}" for axis in ("D", "H", "W")[-ndim:])
    layer.__doc__ = _DOC.format(
        summary=layer.__doc__, ndim=ndim, taps=taps, example=_EXAMPLES[ndim]
    )


class TransposedConv1d(_Layer):
    """A transposed convolution over one spatial axis with fixed weights, packed once."""

    _ndim = 1


class TransposedConv2d(_Layer):
    """A transposed convolution over two spatial axes with fixed weights, packed once."""

    _ndim = 2


class TransposedConv3d(_Layer):
    """A transposed convolution over three spatial axes with fixed weights, packed once."""

    _ndim = 3


for _each in (TransposedConv1d, TransposedConv2d, TransposedConv3d):
    _documented(_each)
