"""Whether an answer is right: every element of it, against sums in float64.

The truth is found from the definition, one tap after another over the whole output, with none of
the backends' code.  An answer may differ from it by no more than rounding can explain: with ``t``
products in a sum and the unit roundoff ``u`` of the type that is summed in, that is
``(t + 2) * u * sum(abs(x * weight))`` (Higham, *Accuracy and Stability of Numerical Algorithms*,
section 3.1), and half a unit in the last place of a half type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from ..._geometry import Geometry
from .suite import Array, Layer

HALF_TYPES = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 2.0**-134)}
"""Half a unit in the last place: relative to a normal number, and absolute for the least ones."""


def mistakes(
    layer: Layer, arrays: Sequence[Array], answers: Mapping[str, Sequence[tuple[Array, ...]]]
) -> dict[str, str]:
    """Return the first mistake of each whose answers are not all right, in words."""
    x, weight = arrays
    wrong = {}
    for name, given in answers.items():
        for (answer,) in given:
            if answer.shape != layer.geometry.out_shape:
                wrong[name] = f"has shape {answer.shape} instead of {layer.geometry.out_shape}"
    for n in range(layer.batch):
        truth, allowed = _truth(layer, x[n], weight)
        for name in answers.keys() - wrong.keys():
            for (answer,) in answers[name]:
                bad = ~(np.abs(answer[n].astype(np.float64) - truth) <= allowed)  # or NaN
                if bad.any():
                    where = tuple(int(i) for i in np.argwhere(bad)[0])
                    wrong[name] = (
                        f"is off by more than rounding explains at {bad.sum()} of {bad.size} "
                        f"outputs of item {n}, first at {where}: {answer[n][where]:.9g} instead "
                        f"of {truth[where]:.9g}"
                    )
    return wrong


def _truth(layer: Layer, x: Array, weight: Array) -> tuple[Array, Array]:
    """Return one item's outputs in float64, and how far from them a right answer may be."""
    stored = x.dtype.name
    summed = np.finfo(np.float64 if stored == "float64" else np.float32)
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    truth, size = _scatter(layer, x, weight), _scatter(layer, np.abs(x), np.abs(weight))
    # The truth has been rounded too.
    allowed = (layer.geometry.terms + 2) * (summed.eps + np.finfo(np.float64).eps) / 2 * size
    if stored in HALF_TYPES:
        roundoff, least = HALF_TYPES[stored]
        allowed += (np.abs(truth) + allowed) * roundoff + least
    return truth, allowed


def _scatter(layer: Layer, x: Array, weight: Array) -> Array:
    """Paint every input over the outputs that it reaches, for one item of a batch."""
    g = layer.geometry
    x = x.reshape(g.groups, g.in_channels // g.groups, -1)
    weight = weight.reshape(g.groups, g.in_channels // g.groups, -1, *g.kernel_size)
    axes = range(g.ndim)
    # Long enough for the window and for all that is cropped from it.
    size = [
        max(g.pad_begin[a] + g.out_size[a], (g.in_size[a] - 1) * g.stride[a] + _reach(g, a))
        for a in axes
    ]
    full: Array = np.zeros((g.out_channels, *size))
    for taps in product(*map(range, g.kernel_size)):
        tap: tuple[Any, ...] = (..., *taps)
        painted = weight[tap].transpose(0, 2, 1) @ x
        first = [k * d for k, d in zip(taps, g.dilation, strict=True)]
        outputs = (
            slice(f, f + (n - 1) * s + 1, s)
            for f, n, s in zip(first, g.in_size, g.stride, strict=True)
        )
        full[:, *outputs] += painted.reshape(-1, *g.in_size)
    window = (slice(g.pad_begin[a], g.pad_begin[a] + g.out_size[a]) for a in axes)
    return full[:, *window]


def _reach(geometry: Geometry, axis: int) -> int:
    return (geometry.kernel_size[axis] - 1) * geometry.dilation[axis] + 1
