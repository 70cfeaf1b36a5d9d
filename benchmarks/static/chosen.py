"""Which kernels the suite's layers choose, on every architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

from tconv import gpu
from tconv.commands.bench import suite
from tconv.gpu.choice import Constant, Specialisation
from tconv.gpu.planning import Plan

ARCHITECTURES = {
    75: "sm_75", 80: "sm_80", 86: "sm_86", 89: "sm_89", 90: "sm_90a", 100: "sm_100", 120: "sm_120",
}  # fmt: skip
"""By compute capability as two digits: what tconv supports."""

PRECISIONS = {"float32": (None, "tf32", "tf32x3")}
BY_CAPABILITY = {"ASYNC"}
"""Constants that follow from the capability alone: they make no row of their own."""

Identity = tuple[str, str, int, int, tuple[tuple[str, Constant], ...]]


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
    return s.kernel, s.dtype, s.index_bits, s.threads, constants


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
        for capability, dtype in product(capabilities, dtypes):
            for s in specialisations(layer, dtype, capability):
                row = found.setdefault(identity(s), Row())
                row.specialisations[capability] = s
                row.layers.setdefault(layer.name)
    return [found[key] for key in sorted(found, key=str)]


def specialisations(layer: suite.Layer, dtype: str, capability: int) -> list[Specialisation]:
    """Return what a layer launches: channels first and last, with every precision."""
    return [
        specialisation
        for precision in PRECISIONS.get(dtype, (None,))
        for last in (False, True)
        for specialisation, _ in plan(
            layer, dtype, capability, precision=precision, channels_last=last
        ).choice.passes
    ]


def plan(layer: suite.Layer, dtype: str, capability: int, **options: object) -> Plan:
    """Return what one layer runs."""
    g = layer.geometry
    arguments = {**layer.arguments, **options}
    return gpu.plan(g.x_shape, g.weight_shape, dtype, capability=capability, **arguments)
