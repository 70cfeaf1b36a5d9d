"""gather: one output by one thread, any geometry."""

from __future__ import annotations

from math import prod

from ..call import Call
from ..choice import Choice, Specialisation, Tile

THREADS = 256

PRODUCT_COST = 8
"""Instructions for a product: two loads, their addresses, and what L1 takes to answer."""
OUTPUT_COST = 60


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


def cost(call: Call) -> float:
    """Return about how many instructions are issued for each row of a matrix product."""
    products = prod(call.geometry.kernel_size) * call.channels * call.out_channels
    return PRODUCT_COST * products + OUTPUT_COST * call.phases * call.out_channels
