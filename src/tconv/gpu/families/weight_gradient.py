"""weight_gradient: the gradient of the weight as one matrix product on FMA units."""

from __future__ import annotations

from ..call import Call
from ..choice import Choice, Tile
from ..splits import LONGEST, columns, gradient_choice, round_up

TILES = {
    4: (Tile(128, 64, 16, 8, 8), Tile(64, 64, 16, 8, 4), Tile(16, 128, 16, 4, 4)),
    8: (Tile(64, 64, 8, 4, 4), Tile(16, 64, 8, 4, 2)),
    16: (Tile(64, 32, 8, 4, 2), Tile(16, 32, 8, 2, 2)),
}
"""Tiles by the size in bytes of what is summed in: channels, pairs (tap, m), positions a step."""


def choose(call: Call, *, asked: bool = False, tile: Tile | None = None) -> Choice | str:
    """Return how the weight gradient is one matrix product, or why that would be a waste."""
    tiles = (tile,) if tile else TILES[call.type.accumulator_bytes]
    tile, share = _best_tile(call, tiles)
    percent = f"{share:.0%} of the products in the weight_gradient kernel's tiles are wanted"
    if share < 1 / 8 and not asked:
        return f"only {percent}"
    return gradient_choice(
        "weight_gradient",
        call,
        tile,
        threads=tile.threads,
        bias_lanes=32 if call.out_channels_last and call.out_shape[1] >= 16 else 1,
        step=tile.depth,
        most=LONGEST * LONGEST,
        constants=(
            ("X_CHANNELS_LAST", call.x_channels_last),
            ("OUT_CHANNELS_LAST", call.out_channels_last),
            ("DEPTH", tile.depth),
            ("THREAD_ROWS", tile.thread_rows),
            ("THREAD_COLUMNS", tile.thread_columns),
            ("ASYNC", call.capability >= 80 and call.type.element_bytes >= 4),
        ),
        shared_bytes=_shared_bytes(call, tile),
        reason=percent,
    )


def _best_tile(call: Call, tiles: tuple[Tile, ...]) -> tuple[Tile, float]:
    """Return the tile that wastes least, and the share of its products that are wanted."""
    wanted = call.channels * columns(call)
    options = []
    for tile in tiles:
        products = round_up(call.channels, tile.rows) * round_up(columns(call), tile.columns)
        # A smaller tile reads memory more often for each product.
        cost = products * (1 + 16 / tile.rows + 16 / tile.columns)
        options.append((cost, tile, wanted / max(products, 1)))
    _, tile, share = min(options, key=lambda option: option[0])
    return tile, share


def _shared_bytes(call: Call, tile: Tile) -> int:
    """Return the size of the kernel's ``Shared``; the kernel asserts it."""
    stage = tile.depth * ((tile.rows + tile.columns) * call.type.accumulator_bytes + 2 * 16)
    positions = tile.depth * (3 + call.geometry.ndim) * call.index_bits // 8
    table = tile.columns * (3 + call.geometry.ndim) * call.index_bits // 8
    return round_up(2 * (stage + positions) + table, 16)
