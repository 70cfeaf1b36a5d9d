"""What the grid of one layer moves and computes, from its geometry and its tile.

A *moved* byte is one that a block asks global memory for, whichever cache answers, or writes there.
The compulsory ones are all of x, the weight and the result, once.

- gather: two elements for each product, and each output.
- A family with a tile: a block fetches a tile of rows and one of columns for every shift that its
  columns visit, in whole steps of channels; absent elements count too.  A second pass reads what
  the first has written.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tconv.gpu.call import Call
from tconv.gpu.choice import Choice, Tile


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a grid fetches and stores, and the products that its threads compute."""

    fetched: int
    stored: int
    products: int

    @property
    def moved(self) -> int:
        """Bytes that a grid moves."""
        return self.fetched + self.stored


def traffic(call: Call, choice: Choice) -> Traffic | None:
    """Return what a grid moves and computes; None for a family without a model."""
    size, g = call.type.element_bytes, call.geometry
    stored = prod(g.out_shape) * size
    if choice.tile is not None:
        elements, products = _tiles(call, choice, choice.tile)
        workspace = choice.workspace_bytes
        return Traffic(elements * size + workspace, stored + workspace, products)
    if choice.specialisation.kernel == "gather":
        return Traffic(2 * g.products * size, stored, g.products)
    return None


def _tiles(call: Call, choice: Choice, tile: Tile) -> tuple[int, int]:
    """Return the elements that all blocks fetch, and the products that they compute."""
    if choice.phase_columns % tile.columns == 0:  # A block has one phase, and visits its taps.
        visits = prod(call.geometry.kernel_size) * (choice.phase_columns // tile.columns)
    else:
        visits = prod(axis.shifts for axis in call.axes) * choice.column_blocks
    depth = -(-call.channels // tile.depth) * tile.depth
    tiles = call.geometry.groups * choice.row_blocks * visits * depth
    return tiles * (tile.rows + tile.columns), tiles * tile.rows * tile.columns
