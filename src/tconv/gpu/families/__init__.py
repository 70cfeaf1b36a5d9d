"""The kernel families, one module for each file in ``kernels/``.

``choose(call, asked=..., tile=...)`` returns how the family computes a call, or a sentence that
says why it does not.  A family that was asked for by name answers unless it cannot.
"""

from __future__ import annotations

from typing import Protocol

from ..call import Call
from ..choice import Choice, Tile
from . import gather, gemm


class Choose(Protocol):
    """How a family answers."""

    def __call__(self, call: Call, *, asked: bool, tile: Tile | None) -> Choice | str:
        """Return how the family computes a call, or why it does not."""


FAMILIES: dict[str, Choose] = {"gemm": gemm.choose, "gather": gather.choose}
"""By the name of the kernel, from the most special to the one that can compute everything."""
