"""The layers of ``suite.toml``: their sizes, their arrays and their arguments."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from importlib.resources import files
from math import prod
from typing import Any

import numpy as np

from ... import _check
from ..._geometry import Geometry
from .. import CommandError

CPU_GROUPS = ("segmentation", "generation", "volume", "audio")
DTYPES = _check.FLOATS
ARGUMENTS = ("stride", "padding", "output_padding", "dilation", "groups")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Layer:
    """One layer that real models run; the tuples have one int per spatial axis."""

    name: str
    group: str
    batch: int
    in_channels: int
    out_channels: int
    in_size: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return len(self.in_size)

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of a call."""
        return {name: getattr(self, name) for name in ARGUMENTS}

    @cached_property
    def geometry(self) -> Geometry:
        """The geometry of a call, as `tconv` itself finds it."""
        x_shape = (self.batch, self.in_channels, *self.in_size)
        weight_shape = (
            self.in_channels,
            self.out_channels // self.groups,
            *self.kernel_size,
        )
        x, weight = (np.broadcast_to(np.float32(0), shape) for shape in (x_shape, weight_shape))
        return _check.geometry(self.ndim, x, weight, None, output_size=None, **self.arguments)


def load(*, cpu: bool) -> list[Layer]:
    """Return the suite's layers, at the sizes of a run on the CPU or on a GPU."""
    tables = tomllib.loads((files("tconv.commands") / "suite.toml").read_text("utf-8"))["layer"]
    return [_layer(table, cpu=cpu) for table in tables]


def _layer(table: dict[str, Any], *, cpu: bool) -> Layer:
    if cpu:
        table = {
            **table,
            "batch": table.get("cpu_batch", table["batch"]),
            "in_size": table.get("cpu_size", table["in_size"]),
        }
    ndim = len(table["in_size"])
    defaults = {
        "stride": (1,) * ndim,
        "padding": (0,) * ndim,
        "output_padding": (0,) * ndim,
        "dilation": (1,) * ndim,
        "groups": 1,
    }
    return from_table(defaults | table)


def from_table(table: dict[str, Any]) -> Layer:
    """Return the layer of a table, as TOML and JSON hold it."""
    values = ((field.name, table[field.name]) for field in fields(Layer))
    arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values}
    return Layer(**arguments)


def select(
    layers: Sequence[Layer], names: Sequence[str], groups: Sequence[str], default: Sequence[str]
) -> list[Layer]:
    """Return the layers that are named or belong to a group; without either, the default groups."""
    _known("row", names, [layer.name for layer in layers])
    _known("group", groups, list(dict.fromkeys(layer.group for layer in layers)))
    if not names and not groups:
        groups = default
    return [layer for layer in layers if layer.name in names or layer.group in groups]


def _known(what: str, wanted: Sequence[str], valid: Sequence[str]) -> None:
    for name in wanted:
        if name not in valid:
            raise CommandError(f"there is no {what} {name!r}; the {what}s are {', '.join(valid)}")


def shrink(layer: Layer, most: int) -> Layer | None:
    """Return the layer at batch 1 and with the longest axes halved until the reference is quick.

    Quick means that zero insertion multiplies at most ``most`` times; None if it never is.
    """
    layer = replace(layer, batch=1)
    while reference_products(layer) > most:
        longest = max(layer.in_size)
        if longest == 1:
            return None
        halved = tuple(max(1, n // 2) if n == longest else n for n in layer.in_size)
        layer = replace(layer, in_size=halved)
    return layer


def reference_products(layer: Layer) -> int:
    """Return how often zero insertion multiplies, inserted zeros and cropped outputs included."""
    products = layer.batch * layer.in_channels * (layer.out_channels // layer.groups)
    axes = zip(layer.in_size, layer.kernel_size, layer.stride, layer.dilation, strict=True)
    for in_size, kernel_size, stride, dilation in axes:
        reach = dilation * (kernel_size - 1) + 1
        products *= ((in_size - 1) * stride + reach) * reach
    return products


def as_dtype(name: str) -> np.dtype[Any]:
    """Return NumPy's dtype of that name; bfloat16 comes from ml_dtypes."""
    if name not in DTYPES:
        raise CommandError(f"there is no dtype {name!r} here; the dtypes are {', '.join(DTYPES)}")
    if name != "bfloat16":
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise CommandError("bfloat16 needs ml_dtypes; pip install 'tconv[bfloat16]'") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def arrays(layer: Layer, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return a normally distributed input and weight, the same on every run."""
    rng = np.random.default_rng(0)
    g = layer.geometry
    return _normal(rng, g.x_shape, dtype), _normal(rng, g.weight_shape, dtype)


def gradient_arrays(layer: Layer, dtype: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Return an output's gradient besides, in front."""
    grad_output = _normal(np.random.default_rng(1), layer.geometry.out_shape, dtype)
    return grad_output, *arrays(layer, dtype)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    # Piece by piece, so that no second array of the whole size is ever in memory.
    flat = np.empty(prod(shape), dtype)
    step = 1 << 16
    for piece in (flat[begin : begin + step] for begin in range(0, flat.size, step)):
        piece[...] = rng.standard_normal(piece.size, np.float32)
    return flat.reshape(shape)
