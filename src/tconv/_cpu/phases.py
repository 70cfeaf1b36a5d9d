"""Which products add up to which outputs along one axis, for all phases that are alike at once.

Neighbouring phases mostly have neighbouring taps with the same shifts.  Such a run of phases is
added up in single operations, on slices of taps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from .._geometry import Geometry


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring phases, with outputs ``q * stride + r - pad_begin``, q from `begin` on.

    `taps` holds ``(k, shift)`` of the `first` phase, the next has ``(k + 1, shift)``, and so on.
    One of the taps, the `cover`, reads an input for every q; the others are added to it.
    """

    first: int
    count: int
    begin: int
    size: int
    taps: tuple[tuple[int, int], ...]
    cover: int = 0

    @property
    def covering(self) -> slice:
        """The covering taps of all phases of the run."""
        k, _ = self.taps[self.cover]
        return slice(k, k + self.count)

    @property
    def inputs(self) -> tuple[int, int]:
        """The inputs that the covering tap reads; some may lie outside the input."""
        _, shift = self.taps[self.cover]
        return self.begin - shift, self.begin - shift + self.size

    @property
    def reach(self) -> tuple[int, int]:
        """How far before input 0 the taps read, and up to where."""
        shifts = [shift for _, shift in self.taps] or [self.begin]
        return max(shifts) - self.begin, self.begin + self.size - min(shifts)

    @property
    def between(self) -> tuple[int, int]:
        """From one tap to the next: how many taps of the kernel, and how many inputs back."""
        if len(self.taps) < 2:
            return 1, 1
        (k, shift), (next_k, next_shift), *_ = self.taps
        return next_k - k, next_shift - shift

    @property
    def others(self) -> list[tuple[slice, int]]:
        """The other taps, and how many inputs after the covering tap's theirs lie."""
        return [
            (slice(k, k + self.count), self.taps[self.cover][1] - shift)
            for number, (k, shift) in enumerate(self.taps)
            if number != self.cover
        ]


@dataclass(frozen=True, slots=True)
class Axis:
    """The phases of an axis; their covering taps read so far `before` and `after` the input."""

    runs: tuple[Run, ...]
    before: int
    after: int


@lru_cache(maxsize=1024)
def phases(geometry: Geometry) -> tuple[tuple[Run, ...], ...]:
    """Return the phases of every axis that have outputs, each as a run of its own."""
    return tuple(
        tuple(
            Run(r, 1, begin, end - begin, taps.get(r, ()))
            for r in _residues(geometry, axis)
            for begin, end in [geometry.phase_window(axis, r)]
        )
        for axis, taps in enumerate(map(geometry.taps, range(geometry.ndim)))
    )


def _residues(g: Geometry, axis: int) -> list[int]:
    """Return the phases that have outputs; a stride may be far longer than the output."""
    begin, stride = g.pad_begin[axis], g.stride[axis]
    return sorted((begin + o) % stride for o in range(min(stride, g.out_size[axis])))


@lru_cache(maxsize=1024)
def axes(geometry: Geometry) -> tuple[Axis, ...]:
    """Return the phases of every axis, gathered into runs with covering taps."""
    return tuple(map(_axis, phases(geometry), geometry.in_size))


def _axis(phases: tuple[Run, ...], in_size: int) -> Axis:
    runs: list[Run] = []
    for phase in phases:
        if runs and _follows(runs[-1], phase):
            runs[-1] = replace(runs[-1], count=runs[-1].count + 1)
        else:
            runs.append(phase)
    runs = [_with_cover(run, in_size) for run in runs]
    ranges = [run.inputs for run in runs if run.taps]
    before = max((-begin for begin, _ in ranges), default=0)
    after = max((end - in_size for _, end in ranges), default=0)
    return Axis(tuple(runs), max(0, before), max(0, after))


def _follows(last: Run, run: Run) -> bool:
    next_taps = tuple((k + last.count, shift) for k, shift in last.taps)
    return (last.first + last.count, last.begin, last.size, next_taps) == (
        run.first,
        run.begin,
        run.size,
        run.taps,
    )


def _with_cover(run: Run, in_size: int) -> Run:
    """Let the tap cover that reads the fewest inputs outside ``[0, in_size)``."""

    def outside(cover: int) -> int:
        begin, end = replace(run, cover=cover).inputs
        return max(0, -begin) + max(0, end - in_size)

    return replace(run, cover=min(range(len(run.taps)), key=outside, default=0))
