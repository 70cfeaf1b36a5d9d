"""What a run of the benchmark found, and the figures that follow from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from statistics import geometric_mean, median
from typing import Any

from .peers import PEERS, PYTORCH, REFERENCE, TCONV
from .suite import Layer

Seconds = dict[str, list[float]]


@dataclass
class Row:
    """One layer: each contender's seconds in every round, or why it has none."""

    layer: Layer
    itemsize: int
    seconds: Seconds = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    mistakes: dict[str, str] = field(default_factory=dict)
    extra_bytes: int | None = None

    def time(self, name: str) -> float | None:
        """Return the median seconds of a call."""
        return median(self.seconds[name]) if self.seconds.get(name) else None

    def ratio(self, *names: str) -> float | None:
        """Return tconv's time over that of the quickest of ``names``: below 1 tconv is quicker."""
        ours, theirs = self.time(TCONV), [time for name in names if (time := self.time(name))]
        return None if ours is None or not theirs else ours / min(theirs)

    @property
    def flops_per_second(self) -> float | None:
        """Useful operations, taps on cropped outputs not counted, over tconv's time."""
        time = self.time(TCONV)
        return None if time is None else self.layer.geometry.flops / time

    @property
    def bytes_per_second(self) -> float | None:
        """Input and weight read once and output written once, over tconv's time."""
        time = self.time(TCONV)
        return None if time is None else self.layer.geometry.nbytes(self.itemsize) / time

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON knows it, with the times in seconds."""
        return {
            "layer": asdict(self.layer),
            "seconds": self.seconds,
            "median_seconds": {name: self.time(name) for name in self.seconds},
            "flops_per_second": self.flops_per_second,
            "bytes_per_second": self.bytes_per_second,
            "ratio_to_better_peer": self.ratio(*PEERS),
            "ratio_to_pytorch": self.ratio(PYTORCH),
            "ratio_to_reference": self.ratio(REFERENCE),
            "extra_bytes": self.extra_bytes,
            "refusals": self.refusals,
            "mistakes": self.mistakes,
        }


@dataclass
class Results:
    """All rows of a run; those against the reference may be of smaller layers."""

    rows: list[Row] = field(default_factory=list)
    gradient_rows: list[Row] = field(default_factory=list)
    reference_rows: list[Row] = field(default_factory=list)
    not_run: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def all_right(self) -> bool:
        """Whether tconv ran every layer, and was right wherever it ran."""
        rows = (*self.rows, *self.gradient_rows, *self.reference_rows)
        return not any(TCONV in row.refusals or TCONV in row.mistakes for row in rows)

    def training(self) -> list[tuple[Row, float | None]]:
        """Return each row of gradients, and its ratio to PyTorch of forward plus gradients."""
        return [
            (row, _together(forward, row).ratio(PYTORCH))
            for forward, row in zip(self.rows, self.gradient_rows, strict=False)
        ]

    def summary(self) -> dict[str, Any]:
        """Return the geometric means over all rows that have the ratio, and the largest memory."""
        two_axes = [row for row in self.reference_rows if row.layer.ndim == 2]
        speedup = mean(row.ratio(REFERENCE) for row in two_axes)
        extra = [row.extra_bytes for row in self.rows if row.extra_bytes is not None]
        return {
            "rows": len(self.rows),
            "ratio_to_better_peer": mean(row.ratio(*PEERS) for row in self.rows),
            "ratio_to_pytorch": mean(row.ratio(PYTORCH) for row in self.rows),
            "gradients_ratio_to_pytorch": mean(row.ratio(PYTORCH) for row in self.gradient_rows),
            "training_ratio_to_pytorch": mean(both for _, both in self.training()),
            "times_faster_than_reference_2d": None if speedup is None else 1 / speedup,
            "largest_extra_bytes": max(extra, default=None),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON knows it."""
        return {
            "summary": self.summary(),
            "rows": [row.as_dict() for row in self.rows],
            "gradient_rows": [row.as_dict() for row in self.gradient_rows],
            "reference_rows": [row.as_dict() for row in self.reference_rows],
            "not_run": self.not_run,
            "notes": self.notes,
        }


def _together(forward: Row, gradients: Row) -> Row:
    """Return a row with the time of both, for those who have both."""
    times = {
        name: [one + other]
        for name in (TCONV, PYTORCH)
        if (one := forward.time(name)) and (other := gradients.time(name))
    }
    return Row(forward.layer, forward.itemsize, seconds=times)


def mean(ratios: Iterable[float | None]) -> float | None:
    """Return the geometric mean of those ratios that exist, or None if there is none."""
    known = [ratio for ratio in ratios if ratio is not None]
    return geometric_mean(known) if known else None
