"""gemm: all phases as one matrix product on FMA units."""

from __future__ import annotations

from math import prod

from ..call import Call
from ..choice import Choice, Specialisation, Tile

TILES = {
    4: (Tile(128, 64, 16, 8, 8), Tile(128, 32, 16, 8, 4), Tile(128, 16, 16, 4, 4)),
    8: (Tile(64, 64, 8, 4, 4), Tile(64, 16, 16, 4, 2)),
    16: (Tile(64, 32, 8, 4, 2), Tile(64, 16, 8, 4, 2)),
}
"""Tiles by the size in bytes of what is summed in, from wide to narrow."""


def choose(call: Call, *, asked: bool = False, tile: Tile | None = None) -> Choice | str:
    """Return how gemm computes a call, or why that would be a waste.

    Gemm computes on its tiles' zeros too; gather loads two operands for every product.
    """
    tiles = (tile,) if tile else TILES[call.type.accumulator_bytes]
    tile, phase_columns, share = _best_tile(call, tiles)
    percent = f"{share:.0%} of the products in the gemm kernel's tiles are wanted"
    if share < 1 / 8 and not asked:
        return f"only {percent}"
    row_blocks = -(-call.rows // tile.rows)
    column_blocks = -(-call.phases * phase_columns // tile.columns)
    specialisation = Specialisation(
        kernel="gemm",
        dtype=call.dtype,
        index_bits=call.index_bits,
        threads=tile.threads,
        constants=(
            ("AXES", call.geometry.ndim),
            ("ACTIVATION", call.activation or "none"),
            ("OUT_CHANNELS_LAST", call.out_channels_last),
            ("X_CHANNELS_LAST", call.x_channels_last),
            ("ROWS", tile.rows),
            ("COLUMNS", tile.columns),
            ("DEPTH", tile.depth),
            ("THREAD_ROWS", tile.thread_rows),
            ("THREAD_COLUMNS", tile.thread_columns),
            ("ASYNC", call.capability >= 80 and call.type.element_bytes >= 4),
        ),
        shared_bytes=_shared_bytes(call, tile),
    )
    return Choice(
        specialisation,
        blocks=call.geometry.groups * row_blocks * column_blocks,
        reason=percent,
        tile=tile,
        phase_columns=phase_columns,
        row_blocks=row_blocks,
        column_blocks=column_blocks,
    )


def _best_tile(call: Call, tiles: tuple[Tile, ...]) -> tuple[Tile, int, float]:
    """Return the tile that wastes least, how many columns a phase gets, and the share of use.

    A phase either has M columns, and blocks mix phases and visit every shift; or it fills its last
    block up, and every block skips the shifts that its phase lacks.
    """
    shifts = prod(axis.shifts for axis in call.axes)
    taps = prod(call.geometry.kernel_size)
    options = []
    for tile in tiles:
        depth = _round_up(call.channels, tile.depth)
        filled = _round_up(call.out_channels, tile.columns)
        mixed = _round_up(call.phases * call.out_channels, tile.columns)
        for phase_columns, products in (
            (call.out_channels, mixed * shifts),
            (filled, filled * taps),
        ):
            stores = call.phases * phase_columns
            # A narrower tile reads shared memory more often for each product.
            narrowness = 1 + 8 / tile.columns
            cost = (products * depth + stores) * narrowness
            options.append((cost, tile, phase_columns, products * depth))
    _, tile, phase_columns, products = min(options, key=lambda option: option[0])
    useful = taps * call.out_channels * call.channels
    return tile, phase_columns, useful / max(products, 1)


def _shared_bytes(call: Call, tile: Tile) -> int:
    """Return the size of the kernel's ``Shared``; the kernel asserts it."""
    padding = 16 if call.x_channels_last else 0
    stage = tile.depth * ((tile.rows + tile.columns) * call.type.accumulator_bytes + padding)
    table = (tile.rows + tile.columns) * (1 + call.geometry.ndim) * call.index_bits // 8
    return _round_up(2 * stage + table, 16)


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
