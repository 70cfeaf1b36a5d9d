"""Which kernels the suite's layers choose, on every architecture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from unittest.mock import patch

from tconv.commands.bench import suite
from tconv.gpu.call import Call, Operation, Strides
from tconv.gpu.choice import Choice, Constant, Specialisation
from tconv.gpu.families import hopper
from tconv.gpu.planning import lying
from tconv.gpu.select import select

ARCHITECTURES = {
    75: "sm_75", 80: "sm_80", 86: "sm_86", 89: "sm_89", 90: "sm_90a", 100: "sm_100", 120: "sm_120",
}  # fmt: skip
"""By compute capability as two digits: what tconv supports."""

READ = (80, 90, 100)
"""Capabilities whose machine code is read; for the others kernels are only compiled."""

TENSOR_CORES = ("mma", "hopper")
"""Kernels that multiply on them."""

PRECISIONS = {"float32": (None, "tf32", "tf32x3")}
TRAINED = ("float32", "float16")
GRADIENTS: tuple[Operation, ...] = ("conv", "weight_gradient")
ORDERS = ("function", "layer", "layer, channels last")
"""How arrays lie: a function's weight as it is, a layer's packed (output channels nearest)."""

BY_CAPABILITY = {"ASYNC", "BLOCKS"}
"""Constants that follow from the capability alone: they make no row of their own."""

Identity = tuple[str, str, int, int, bool, tuple[tuple[str, Constant], ...]]


@dataclass(slots=True)
class Row:
    """One kernel as the suite uses it: its specialisation on each capability, and its layers."""

    specialisations: dict[int, Specialisation] = field(default_factory=dict)
    layers: dict[str, None] = field(default_factory=dict)

    @property
    def one(self) -> Specialisation:
        """One of the specialisations; they differ in what follows from the capability."""
        return next(iter(self.specialisations.values()))


def identity(s: Specialisation) -> Identity:
    """Return what distinguishes a row from others."""
    constants = tuple((n, value) for n, value in s.constants if n not in BY_CAPABILITY)
    return s.kernel, s.dtype, s.index_bits, s.threads, s.adjoint, constants


def rows(
    dtypes: Sequence[str] = suite.DTYPES,
    capabilities: Sequence[int] = tuple(ARCHITECTURES),
    layers: Sequence[str] = (),
) -> list[Row]:
    """Return every kernel that the layers choose, in any order of memory and with any precision."""
    found: dict[Identity, Row] = {}
    for layer in suite.load(cpu=False):
        if layers and layer.name not in layers:
            continue
        for one in calls(layer, dtypes, capabilities):
            for s in launched(one):
                row = found.setdefault(identity(s), Row())
                row.specialisations[one.capability] = s
                row.layers.setdefault(layer.name)
    return [found[key] for key in sorted(found, key=str)]


def choices(call: Call) -> tuple[Choice, Choice]:
    """Return what is chosen without and with the family that is off by default."""
    with patch.dict(os.environ, {hopper.SWITCH: "1"}):
        switched_on = select(call)
    return select(call), switched_on


def launched(call: Call) -> set[Specialisation]:
    """Return what a call launches, with and without the family that is off by default."""
    return {specialisation for choice in choices(call) for specialisation, _ in choice.passes}


def calls(layer: suite.Layer, dtypes: Sequence[str], capabilities: Sequence[int]) -> Iterator[Call]:
    """Yield the calls of one layer, forward and of its gradients; fewer where code is not read."""
    for dtype, capability in product(dtypes, capabilities):
        some = capability not in READ
        if some and dtype not in TRAINED:
            continue
        orders, precisions = ORDERS, PRECISIONS.get(dtype, (None,))
        for order, precision in product(orders[:1] if some else orders, precisions):
            yield call(layer, dtype, capability, order, precision)
        if dtype in TRAINED:
            for operation in GRADIENTS:
                yield call(layer, dtype, capability, operation=operation)


def call(
    layer: suite.Layer,
    dtype: str,
    capability: int,
    order: str = "function",
    precision: str | None = None,
    operation: Operation = "transposed_conv",
) -> Call:
    """Return one call of a layer, with a bias."""
    g = layer.geometry
    read, written = g.x_shape, g.out_shape
    if operation == "conv":
        read, written = written, read
    axes = tuple(range(2, g.ndim + 2))
    of_images = (0, *axes, 1) if "channels last" in order else (0, 1, *axes)
    of_weight = (0, 1, *axes) if order == "function" else (*axes, 0, 1)
    strides = Strides(
        x=lying(read, *of_images),
        weight=lying(g.weight_shape, *of_weight),
        bias=1,
        out=lying(written, *of_images),
    )
    return Call(g, dtype, strides, None, precision, capability, operation)
