"""gather: one output by one thread, any geometry."""

from __future__ import annotations

from math import prod

from ..call import Call
from ..choice import Choice, Specialisation, Tile

THREADS = 256


def choose(call: Call, *, asked: bool = False, tile: Tile | None = None) -> Choice | str:  # noqa: ARG001
    """Return how gather computes a call; it always can."""
    specialisation = Specialisation(
        kernel="gather",
        dtype=call.dtype,
        index_bits=call.index_bits,
        threads=THREADS,
        constants=(
            ("AXES", call.geometry.ndim),
            ("ACTIVATION", call.activation or "none"),
            ("OUT_CHANNELS_LAST", call.out_channels_last),
        ),
        adjoint=call.adjoint,
    )
    return Choice(
        specialisation,
        blocks=-(-prod(call.out_shape) // THREADS),
        reason="gather computes everything",
    )
