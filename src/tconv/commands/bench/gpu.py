"""The benchmark on a GPU: every layer, in every variant, beside every mode of PyTorch.

A variant is a dtype, or a precision of float32.  All kernels are compiled before the first is
timed, and the file is written after every row, so a run that is cut short loses nothing: with the
same file, the next one goes on where it ended.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import product
from multiprocessing import get_context
from statistics import geometric_mean
from typing import Any, Protocol

from ... import gpu
from ...gpu.call import Call, Strides
from ...gpu.choice import Choice, Specialisation
from ...gpu.planning import lying
from ...gpu.select import select
from .measure import GRADIENTS, SAMPLED, Plan, Task, measure
from .peers import Factory
from .results import Row
from .suite import Layer, as_dtype, from_table

VARIANTS = ("float32", "tf32", "tf32x3", "float16", "bfloat16", "float64")
TRAINED = ("float32", "tf32", "float16", "bfloat16")
"""The variants that have gradients."""

OURS, LAYER, PEERS = "tconv", "tconv layer", "PyTorch"
"""How the names of contenders begin; a mode follows."""


class Machine(Protocol):
    """A device, as this benchmark sees it."""

    capability: int

    def seconds(self, run: Callable[[], Any], calls: int) -> float:
        """Return the seconds of a call, by the device's clock."""

    def facts(self) -> dict[str, Any]:
        """Return what a reader must know to compare its figures."""

    def ceilings(self, variants: Sequence[str]) -> dict[str, float]:
        """Return bytes a second of a copy, and operations a second of each variant."""

    def contenders(self, layer: Layer, variant: str, *, gradients: bool) -> dict[str, Factory]:
        """Return who computes a layer."""


@dataclass
class GpuRow(Row):
    """One layer in one variant."""

    variant: str = "float32"
    kernel: str = ""
    gradients: bool = False

    @property
    def key(self) -> tuple[str, str, bool]:
        """What makes it one row of the file."""
        return self.layer.name, self.variant, self.gradients

    def best(self, who: str) -> tuple[float, str] | None:
        """Return the least time of somebody's modes, and that mode."""
        modes = {name.removeprefix(f"{who} "): name for name in self.seconds}
        if who == OURS:
            modes = {mode: name for mode, name in modes.items() if not name.startswith(LAYER)}
        times = [
            (time, mode)
            for mode, name in modes.items()
            if name.startswith(who) and (time := self.time(name))
        ]
        return min(times, default=None)

    def ratio_to_best_peer(self) -> float | None:
        """Return the peers' least time over ours: above 1 tconv is quicker."""
        theirs, ours = self.best(PEERS), self.best(LAYER) or self.best(OURS)
        return theirs[0] / ours[0] if theirs and ours else None

    def floor(self, ceilings: Mapping[str, float]) -> float | None:
        """Return the least seconds of a call: those of its operations or of its bytes."""
        if self.variant not in ceilings or self.gradients:
            return None
        g = self.layer.geometry
        return max(g.flops / ceilings[self.variant], g.nbytes(self.itemsize) / ceilings["copy"])

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON knows it."""
        return {
            "variant": self.variant,
            "kernel": self.kernel,
            "gradients": self.gradients,
            "itemsize": self.itemsize,
            "layer": asdict(self.layer),
            "seconds": self.seconds,
            "median_seconds": {name: self.time(name) for name in self.seconds},
            "refusals": self.refusals,
            "mistakes": self.mistakes,
            "ratio_to_best_peer": self.ratio_to_best_peer(),
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> GpuRow:
        """Return the row that a file holds."""
        names = ("variant", "kernel", "gradients", "itemsize", "seconds", "refusals", "mistakes")
        return cls(layer=from_table(row["layer"]), **{name: row[name] for name in names})


@dataclass
class GpuResults:
    """All rows so far, and the ceilings of the machine they were measured on."""

    facts: dict[str, Any]
    ceilings: dict[str, float]
    rows: list[GpuRow] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)

    @property
    def all_right(self) -> bool:
        """Whether tconv ran every layer, and was right wherever it ran."""
        wrong = [name for row in self.rows for name in (*row.refusals, *row.mistakes)]
        return not any(name.startswith(OURS) for name in wrong)

    def mean(self, variant: str, *, gradients: bool = False) -> float | None:
        """Return the geometric mean of the ratios to the best peer."""
        rows = [row for row in self.rows if (row.variant, row.gradients) == (variant, gradients)]
        ratios = [ratio for row in rows if (ratio := row.ratio_to_best_peer())]
        return geometric_mean(ratios) if ratios else None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON knows it."""
        return {
            **self.facts,
            "ceilings": self.ceilings,
            "rows": [row.as_dict() for row in self.rows],
            "not_run": self.not_run,
        }


def plan_of(
    layer: Layer, variant: str, capability: int, *, channels_last: bool, packed: bool = False
) -> gpu.Plan:
    """Return what tconv would run on a layer."""
    g = layer.geometry
    precision = variant if variant.startswith("tf32") else None
    return gpu.plan(
        g.x_shape,
        g.weight_shape,
        "float32" if precision else variant,
        **layer.arguments,
        precision=precision,
        channels_last=channels_last,
        packed=packed,
        capability=capability,
    )


def gradient_choices(
    layer: Layer, variant: str, capability: int, *, channels_last: bool
) -> Iterator[Choice]:
    """Yield what tconv would run on a layer's gradients."""
    g = layer.geometry
    dtype = "float32" if variant.startswith("tf32") else variant
    axes = range(2, g.ndim + 2)
    images = (0, *axes, 1) if channels_last else (0, 1, *axes)
    x, y = lying(g.x_shape, *images), lying(g.out_shape, *images)
    weight = lying(g.weight_shape, 0, 1, *axes)
    conv, gradient = Strides(y, weight, 0, x), Strides(x, weight, 1, y)
    yield select(Call(g, dtype, conv, capability=capability, operation="conv"))
    yield select(Call(g, dtype, gradient, capability=capability, operation="weight_gradient"))


def specialisations(
    layers: Sequence[Layer], variants: Sequence[str], capability: int, *, gradients: bool = False
) -> dict[Specialisation, list[str]]:
    """Return what is launched on layers, with the layers' names.

    That is in both orders of memory, by functions and by layer objects.
    """
    chosen: dict[Specialisation, list[str]] = {}
    for layer, variant, last in product(layers, variants, (False, True)):
        choices = [
            plan_of(layer, variant, capability, channels_last=last, packed=packed).choice
            for packed in (False, True)
        ]
        if gradients and variant in TRAINED:
            choices += gradient_choices(layer, variant, capability, channels_last=last)
        for choice in choices:
            for specialisation, _ in choice.passes:
                chosen.setdefault(specialisation, []).append(layer.name)
    return chosen


def prepare(
    layers: Sequence[Layer],
    variants: Sequence[str],
    capability: int,
    jobs: int,
    *,
    gradients: bool = False,
) -> int:
    """Compile every kernel that is launched on layers into the cache; return how many there are."""
    from ...gpu import compile
    from ...gpu.source import source

    chosen = specialisations(layers, variants, capability, gradients=gradients)
    build = partial(compile.cubin, architecture=compile.architecture(capability))
    # In one process NVRTC compiles one program at a time.
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        return len(set(pool.map(build, map(source, chosen))))


def run(
    layers: Sequence[Layer],
    variants: Sequence[str],
    plan: Plan,
    machine: Machine,
    results: GpuResults,
    keep: Callable[[GpuResults], None],
) -> None:
    """Measure all rows that ``results`` lacks, and ``keep`` them after each."""
    end = time.perf_counter() + plan.seconds
    done = {row.key for row in results.rows}
    wanted = [
        (layer, variant, gradients)
        for gradients in ((False, True) if plan.with_gradients else (False,))
        for variant in variants
        if variant in TRAINED or not gradients
        for layer in layers
        if (layer.name, variant, gradients) not in done
    ]
    results.not_run = [_name(*one) for one in wanted]
    for number, (layer, variant, gradients) in enumerate(wanted):
        begin = time.perf_counter()
        if begin > end:
            break
        deadline = begin + (end - begin) / (len(wanted) - number)
        results.rows.append(_row(layer, variant, plan, machine, deadline, gradients=gradients))
        del results.not_run[0]
        keep(results)


def _row(
    layer: Layer, variant: str, plan: Plan, machine: Machine, deadline: float, *, gradients: bool
) -> GpuRow:
    dtype = as_dtype("float32" if variant.startswith("tf32") else variant)
    task = GRADIENTS if gradients else SAMPLED
    if variant == "tf32":
        task = Task(task.arrays, partial(task.mistakes, tf32=True))
    measured = measure(
        layer,
        machine.contenders(layer, variant, gradients=gradients),
        replace(plan, dtype=dtype),
        deadline,
        task,
        machine.seconds,
    )
    choice = plan_of(layer, variant, machine.capability, channels_last=False).choice
    return GpuRow(
        layer,
        dtype.itemsize,
        measured.seconds,
        measured.refusals,
        measured.mistakes,
        variant=variant,
        kernel=f"{choice.specialisation.kernel} {choice.tile or ''}".strip(),
        gradients=gradients,
    )


def _name(layer: Layer, variant: str, gradients: bool) -> str:
    return f"{layer.name} {variant}{' gradients' if gradients else ''}"
