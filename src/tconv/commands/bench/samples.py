"""Whether single elements of an answer are right, against sums in float64.

For what is too large to be computed twice: gradients, and layers at the sizes of a GPU run.  The
elements are drawn anew for each layer, and those in the corners are always among them.

A float32 sum may be off by ``(2 * sqrt(t) + 64) * u * sum(abs(a * b))`` with ``t`` products and the
unit roundoff ``u``: rounding errors cancel like a random walk (Higham and Mary, *A New Approach to
Probabilistic Rounding Error Analysis*, 2019), and the constant leaves room for fast algorithms,
which add and subtract before they multiply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from .suite import Array, Layer
from .truth import HALF_TYPES

OUTPUTS, WEIGHTS = 2000, 60
"""How many elements are looked at, besides the corners."""

TF32 = 2.0**-10
"""How far a product of two numbers rounded to TF32 may be from theirs, relatively."""

Places = tuple[Array, ...]
"""An index array for each axis."""

Sums = tuple[Array, Array, Array]
"""Of each place the sum, the sum of magnitudes, and the number of products."""


def output_mistakes(
    layer: Layer,
    arrays: Sequence[Array],
    answers: Mapping[str, Sequence[tuple[Array, ...]]],
    *,
    tf32: bool = False,
) -> dict[str, str]:
    """Return the first mistake of each whose outputs are not all right, in words."""
    x, weight = arrays
    at = _places(layer.geometry.out_shape, OUTPUTS)
    return _mistakes([("output", at, outputs(layer, x, weight, at))], answers, tf32)


def gradient_mistakes(
    layer: Layer,
    arrays: Sequence[Array],
    answers: Mapping[str, Sequence[tuple[Array, ...]]],
    *,
    tf32: bool = False,
) -> dict[str, str]:
    """Return the first mistake of each whose three gradients are not all right, in words."""
    grad_output, x, weight = arrays
    g = layer.geometry
    of_x, of_weight = _places(g.x_shape, OUTPUTS), _places(g.weight_shape, WEIGHTS)
    of_bias = (np.arange(g.out_channels),)
    wanted = [
        ("grad_x", of_x, grad_x(layer, grad_output, weight, of_x)),
        ("grad_weight", of_weight, grad_weight(layer, grad_output, x, of_weight)),
        ("grad_bias", of_bias, grad_bias(grad_output)),
    ]
    return _mistakes(wanted, answers, tf32)


def _mistakes(
    wanted: Sequence[tuple[str, Places, Sums]],
    answers: Mapping[str, Sequence[tuple[Array, ...]]],
    tf32: bool,
) -> dict[str, str]:
    wrong: dict[str, str] = {}
    for (name, given), (number, (what, at, sums)) in product(answers.items(), enumerate(wanted)):
        for answer in given:
            bad = ~(np.abs(answer[number][at].astype(np.float64) - sums[0])
                    <= _allowed(sums, answer[number].dtype, tf32))  # or NaN  # fmt: skip
            if bad.any() and name not in wrong:
                first = int(bad.argmax())
                where = tuple(int(axis[first]) for axis in at)
                wrong[name] = (
                    f"is off by more than rounding explains at {bad.sum()} of {bad.size} places "
                    f"of {what}, first at {where}: {answer[number][where]:.9g} instead of "
                    f"{sums[0][first]:.9g}"
                )
    return wrong


def _allowed(sums: Sums, dtype: np.dtype[Any], tf32: bool) -> Array:
    truth, size, terms = sums
    unit = np.finfo(np.float64 if dtype.name == "float64" else np.float32).eps / 2
    allowed: Array = (2 * np.sqrt(terms) + 64) * unit * size + (TF32 * size if tf32 else 0)
    if dtype.name in HALF_TYPES:
        roundoff, least = HALF_TYPES[dtype.name]
        allowed += (np.abs(truth) + allowed) * roundoff + least
    return allowed


def _places(shape: tuple[int, ...], count: int) -> Places:
    """Return the corners of an array and elements drawn at random."""
    rng = np.random.default_rng()
    corners = list(product(*({0, n - 1} for n in shape)))
    drawn = rng.integers(0, shape, (count, len(shape)))
    return tuple(np.concatenate([corners, drawn]).T)


def outputs(layer: Layer, x: Array, weight: Array, at: Places) -> Sums:
    """Return the output's elements: the sums over the inputs that reach them."""
    g = layer.geometry
    n, m, *o = at
    group, m = np.divmod(m, g.out_channels // g.groups)
    channels = _channels(group, g.in_channels // g.groups)

    def terms(taps: tuple[int, ...]) -> tuple[Array, Array, Array]:
        i, there = [], np.ones(len(n), bool)
        for axis, tap in enumerate(taps):
            position, rest = np.divmod(
                o[axis] + g.pad_begin[axis] - tap * g.dilation[axis], g.stride[axis]
            )
            there &= (rest == 0) & (position >= 0) & (position < g.in_size[axis])
            i.append(position)
        inputs = x[n[there, None], channels[there], *(p[there, None] for p in i)]
        return there, inputs, weight[channels[there], m[there, None], *taps]

    return _sums(len(n), map(terms, product(*map(range, g.kernel_size))))


def grad_x(layer: Layer, grad_output: Array, weight: Array, at: Places) -> Sums:
    """Return elements of the gradient of x: the sums over the outputs that an input reaches."""
    g = layer.geometry
    n, c, *i = at
    out_channels = g.out_channels // g.groups
    group = c // (g.in_channels // g.groups)
    channels = _channels(group, out_channels)

    def terms(taps: tuple[int, ...]) -> tuple[Array, Array, Array]:
        o, there = [], np.ones(len(n), bool)
        for axis, tap in enumerate(taps):
            position = i[axis] * g.stride[axis] + tap * g.dilation[axis] - g.pad_begin[axis]
            there &= (position >= 0) & (position < g.out_size[axis])
            o.append(position)
        gradients = grad_output[n[there, None], channels[there], *(p[there, None] for p in o)]
        return there, gradients, weight[c[there, None], np.arange(out_channels)[None], *taps]

    return _sums(len(n), map(terms, product(*map(range, g.kernel_size))))


def grad_weight(layer: Layer, grad_output: Array, x: Array, at: Places) -> Sums:
    """Return elements of the gradient of the weight: all products that one tap connects."""
    g = layer.geometry
    sums = np.zeros((3, len(at[0])))
    for number, (c, m, *taps) in enumerate(zip(*at, strict=True)):
        inputs: list[slice] = []
        outputs: list[slice] = []
        for axis, tap in enumerate(taps):
            stride, offset = g.stride[axis], tap * g.dilation[axis] - g.pad_begin[axis]
            first = max(0, -(offset // stride))
            last = min(g.in_size[axis] - 1, (g.out_size[axis] - 1 - offset) // stride)
            count = max(0, last - first + 1)
            begin = first * stride + offset
            inputs.append(slice(first, first + count))
            outputs.append(slice(begin, begin + count * stride, stride) if count else slice(0, 0))
        channel = c // (g.in_channels // g.groups) * (g.out_channels // g.groups) + m
        a = x[:, c, *inputs].astype(np.float64)
        products = a * grad_output[:, channel, *outputs].astype(np.float64)
        sums[:, number] = products.sum(), np.abs(products).sum(), products.size
    return sums[0], sums[1], sums[2]


def grad_bias(grad_output: Array) -> Sums:
    """Return the gradient of the bias: the sum of each channel."""
    wide = (grad_output[:, m].astype(np.float64) for m in range(grad_output.shape[1]))
    rows = np.array([(one.sum(), np.abs(one).sum(), one.size) for one in wide])
    return rows[:, 0], rows[:, 1], rows[:, 2]


def _channels(group: Array, count: int) -> Array:
    """Return the channels of each place's group."""
    channels: Array = group[:, None] * count + np.arange(count)
    return channels


def _sums(count: int, terms: Iterator[tuple[Array, Array, Array]]) -> Sums:
    """Add up ``(places that have this term, left factors, right factors)``."""
    sums = np.zeros((3, count))
    for there, a, b in terms:
        products = a.astype(np.float64) * b.astype(np.float64)
        sums[:, there] += products.sum(1), np.abs(products).sum(1), np.full(len(a), a.shape[1])
    return sums[0], sums[1], sums[2]

