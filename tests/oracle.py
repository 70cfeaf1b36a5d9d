"""What a transposed convolution is, in plain loops; imports nothing from tconv.

    y[n, m, i * stride + k * dilation - begin] += x[n, c, i] * weight[c, m, k]

Everything here is the slow and obvious way: each tap of the kernel paints the whole input,
weighted, onto the full result, of which the output is a window.  The answer is exact on integers
(int64, which wraps) and on integer-valued reals; otherwise it is float64 or complex128, and `bound`
says how far from it a result in the caller's dtype may lie.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np

UNIT = {
    "float16": 2.0**-24,  # half types are summed in float32
    "bfloat16": 2.0**-24,
    "float32": 2.0**-24,
    "float64": 2.0**-53,
    "complex64": 2.0**-24,
    "complex128": 2.0**-53,
}
"""Unit roundoff of the sums."""

STORED = {
    "float16": (2.0**-11, 2.0**-25),
    "bfloat16": (2.0**-8, 2.0**-134),
    "float32": (2.0**-24, 2.0**-150),
    "float64": (2.0**-53, 0.0),
    "complex64": (2.0**-24, 2.0**-150),
    "complex128": (2.0**-53, 0.0),
}
"""Half a unit in the last place of the stored type: relative, and absolute where subnormal."""


def window(
    in_size, kernel_size, *, stride=1, padding=0, output_padding=0, output_size=None, dilation=1
):
    """Return stride, dilation, where the output begins on the full result, and its length."""
    ndim = len(in_size)
    stride, dilation, extra = (per_axis(v, ndim) for v in (stride, dilation, output_padding))
    begins, sizes = [], []
    for axis, (n, k, s, d) in enumerate(zip(in_size, kernel_size, stride, dilation, strict=True)):
        full = (n - 1) * s + d * (k - 1) + 1
        if padding == "valid":
            begin, size = 0, (n - 1) * s + max(d * (k - 1) + 1, s)
        elif isinstance(padding, str):
            size = n * s
            cropped = max(full - size, 0)
            begin = cropped - cropped // 2 if padding == "same_lower" else cropped // 2
        else:
            pad = per_axis(padding, ndim)[axis]
            begin, end = per_axis(pad, 2)
            size = full - begin - end + extra[axis]
            if output_size is not None:
                size = per_axis(output_size, ndim)[axis]
        begins.append(begin)
        sizes.append(size)
    return stride, dilation, tuple(begins), tuple(sizes)


def per_axis(value, ndim):
    return (value,) * ndim if isinstance(value, int) else tuple(value)


def transposed_conv(x, weight, bias=None, *, groups=1, activation=None, **spelling):
    """Return the exact answer, in int64, float64 or complex128."""
    x, weight = wide(x), wide(weight)
    ndim = weight.ndim - 2
    if x.ndim == ndim + 1:
        y = transposed_conv(x[None], weight, bias, groups=groups, activation=activation, **spelling)
        return y[0]
    kernel_size, in_size = weight.shape[2:], x.shape[2:]
    stride, dilation, begin, size = window(in_size, kernel_size, **spelling)
    # A block of channels for each group.
    block = len(weight) // groups
    x = x.reshape(len(x), groups, block, *in_size)
    weight = weight.reshape(groups, block, *weight.shape[1:])

    full_size = full_sizes(in_size, kernel_size, stride, dilation)
    full = np.zeros((len(x), groups, weight.shape[2], *full_size), x.dtype)
    for tap in product(*map(range, kernel_size)):
        painted = map(landing, tap, in_size, stride, dilation)
        full[:, :, :, *painted] += np.einsum("ngc...,gcm->ngm...", x, weight[:, :, :, *tap])

    y = cut(full.reshape(len(x), groups * weight.shape[2], *full_size), begin, size)
    if bias is not None:
        y = y + wide(bias).reshape(-1, *[1] * ndim)
    return y if activation is None else ACTIVATIONS[activation](y)


def adjoint(y, weight, in_size, *, groups=1, **spelling):
    """Return the x-shaped array with <transposed_conv(x), y> == <x, adjoint(y)> for every x."""
    y, weight = wide(y), wide(weight)
    kernel_size = weight.shape[2:]
    stride, dilation, begin, _ = window(in_size, kernel_size, **spelling)
    full_size = full_sizes(in_size, kernel_size, stride, dilation)
    # The outputs lie at begin on the full result: cut a window of that at -begin.
    full = cut(y, [-b for b in begin], full_size)
    full = full.reshape(len(y), groups, weight.shape[1], *full_size)
    weight = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])

    x = np.zeros((len(y), groups, weight.shape[1], *in_size), full.dtype)
    for tap in product(*map(range, kernel_size)):
        painted = map(landing, tap, in_size, stride, dilation)
        x += np.einsum("ngm...,gcm->ngc...", full[:, :, :, *painted], weight[:, :, :, *tap])
    return x.reshape(len(y), groups * weight.shape[1], *in_size)


def full_sizes(in_size, kernel_size, stride, dilation):
    sizes = zip(in_size, kernel_size, stride, dilation, strict=True)
    return tuple((n - 1) * s + d * (k - 1) + 1 for n, k, s, d in sizes)


def landing(k, in_size, stride, dilation):
    """Return the outputs of the full result that tap k reaches, one for each input."""
    return slice(k * dilation, k * dilation + (in_size - 1) * stride + 1, stride)


def cut(full, begin, size):
    """Return the window of the last axes that starts at begin, zeros where it leaves the array."""
    full_size = full.shape[2:]
    margins = [
        (max(-b, 0), max(b + n - f, 0)) for b, n, f in zip(begin, size, full_size, strict=True)
    ]
    full = np.pad(full, [(0, 0), (0, 0), *margins])
    return full[:, :, *(slice(max(b, 0), max(b, 0) + n) for b, n in zip(begin, size, strict=True))]


def wide(array):
    """Return an array in the type that is exact here."""
    kind = array.dtype.kind
    if kind == "c":
        return array.astype(np.complex128)
    return array.astype(np.int64 if kind == "i" else np.float64)


def narrow(array, dtype):
    """Return the exact answer rounded once to dtype; integers wrap."""
    with np.errstate(all="ignore"):
        return array.astype(dtype)


ACTIVATIONS = {
    "relu": lambda y: np.where(y > 0, y, np.where(np.isnan(y), y, 0)).astype(y.dtype),
    "leaky_relu": lambda y: np.where(y > 0, y, 0.01 * y),
    "sigmoid": np.vectorize(lambda y: 0.0 if y < -700 else 1 / (1 + math.exp(-y)), otypes="d"),
    "tanh": np.vectorize(math.tanh, otypes="d"),
    "gelu": np.vectorize(lambda y: y and y / 2 * math.erfc(-y / math.sqrt(2)), otypes="d"),
    "silu": np.vectorize(lambda y: 0.0 if y < -700 else y / (1 + math.exp(-y)), otypes="d"),
}

STEEPEST = {"relu": 1, "leaky_relu": 1, "sigmoid": 0.25, "tanh": 1, "gelu": 1.13, "silu": 1.1}
"""Lipschitz constants: how much an activation can enlarge an error."""


SUMS = {
    "rounded": lambda t: t + 2,
    "tensor cores": lambda t: 4 * t + 2,
    "tf32": lambda t: 2**14 + t + 132,
    "tf32x3": lambda t: t + 80,
}
"""How many units of roundoff a sum of t products may be off by, for each way to sum.

Tensor cores cut sums off: 2^-22 for each term.  TF32 rounds both factors to 11 bits, and sums 32
products at once before it adds in float32.  Three products of TF32 leave out 12 units, and sum 16.
"""


def bound(x, weight, bias=None, *, activation=None, sums="rounded", **call):
    """Return how far a result in x's dtype may lie from the exact answer, output by output.

    A sum of t products is off by at most `SUMS` units of sum |x| |w| + |bias|, in any order;
    complex products count twice.  An activation enlarges that by at most its steepest slope and
    adds its own rounding, a few units of its value or of its argument; storing adds half a unit in
    the last place.
    """
    dtype = x.dtype.name
    # The oracle's own sums are rounded as well.
    u = UNIT[dtype] + 2.0**-53
    size = transposed_conv(
        abs(wide(x)), abs(wide(weight)), None if bias is None else abs(wide(bias)), **call
    )
    terms = transposed_conv(np.ones(x.shape), np.ones(weight.shape), **call)
    terms = np.maximum(terms, 1) * (2 if x.dtype.kind == "c" else 1)
    error = SUMS[sums](terms) * u * size
    exact = transposed_conv(x, weight, bias, **call)
    if activation is not None:
        error = STEEPEST[activation] * error
        if activation in ("sigmoid", "tanh"):
            error = error + 8 * u
        elif activation != "relu":
            error = error + 8 * u * abs(exact)
        exact = ACTIVATIONS[activation](exact)
    relative, absolute = STORED[dtype]
    return error + relative * (abs(exact) + error) + absolute


def assert_exact(result, answer, dtype):
    """Assert that a result is the exact answer, rounded once, in the right dtype."""
    assert result.dtype == dtype
    np.testing.assert_array_equal(comparable(result), comparable(narrow(answer, dtype)))


def assert_within(result, answer, limit):
    """Assert that a result lies within its bound of the exact answer."""
    error = abs(wide(result) - answer)
    assert result.shape == answer.shape
    # A NaN compares as not within.
    outside = np.argwhere(~(error <= limit))
    if len(outside):
        worst = tuple(outside[0])
        raise AssertionError(
            f"{len(outside)} of {error.size} outside the bound; at {worst} got {result[worst]}, "
            f"should be {answer[worst]} +- {limit[worst]}"
        )


def comparable(array):
    """NumPy's comparisons do not know bfloat16."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
