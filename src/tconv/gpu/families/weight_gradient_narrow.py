"""weight_gradient_narrow: the gradient of the weight, of few channels."""

from __future__ import annotations

from ..call import Call
from ..choice import Choice, Tile
from ..splits import LONGEST, columns, gradient_choice, round_up

THREADS = 128
TILES = (Tile(1, 16, 1, 1, 16), Tile(4, 4, 1, 4, 4))
"""What each thread sums: channels x pairs (tap, m)."""


def choose(call: Call, *, asked: bool = False, tile: Tile | None = None) -> Choice | str:  # noqa: ARG001
    """Return how each thread sums a small tile; that always can be."""
    tile = tile or min(TILES, key=lambda tile: _loads(call, tile))
    lanes = 32 if call.out_channels_last and call.geometry.groups >= 16 else 1
    table = tile.columns * (3 + call.geometry.ndim) * call.index_bits // 8
    sums = THREADS * tile.rows * tile.columns * call.type.accumulator_bytes
    return gradient_choice(
        "weight_gradient_narrow",
        call,
        tile,
        threads=THREADS,
        group_lanes=lanes,
        bias_lanes=lanes,
        step=THREADS // lanes,
        most=LONGEST * THREADS // lanes,
        shared_bytes=round_up(sums + table, 16),
        reason="weight_gradient_narrow computes everything",
    )


def _loads(call: Call, tile: Tile) -> int:
    """Return what all tiles of a group load for one position."""
    row_blocks = -(-call.channels // tile.rows)
    column_blocks = -(-columns(call) // tile.columns)
    return row_blocks * column_blocks * (tile.rows + tile.columns)
