"""What the grid of one layer moves and computes, from its geometry and its tile.

A *moved* element is one that a block asks global memory for, or writes there; whichever cache
answers.  The compulsory ones are all of x, the weight and the result, once.

- gather: two elements for each product, and each output.
- A family with a tile: a block fetches a tile of rows and one of columns for every shift that its
  columns visit, in whole steps of channels; absent elements count too.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from tconv.gpu.call import TYPES, Axis
from tconv.gpu.planning import Plan


@dataclass(frozen=True, slots=True)
class Traffic:
    """Elements that a grid fetches and stores, and the products that its threads compute."""

    fetched: int
    stored: int
    products: int


def traffic(plan: Plan) -> Traffic | None:
    """Return what a plan's grid moves and computes; None for a family without a model."""
    stored = prod(plan.geometry.out_shape)
    if plan.choice.tile is not None:
        return _tiles(plan, stored)
    if plan.choice.specialisation.kernel == "gather":
        products = plan.geometry.products
        return Traffic(2 * products, stored, products)
    return None


def _tiles(plan: Plan, stored: int) -> Traffic:
    g, choice, tile = plan.geometry, plan.choice, plan.choice.tile
    axes = [Axis.of(g, axis) for axis in range(g.ndim)]
    if choice.phase_columns % tile.columns == 0:  # A block has one phase, and visits its taps.
        visits = prod(g.kernel_size) * (choice.phase_columns // tile.columns)
    else:
        visits = prod(axis.shifts for axis in axes) * choice.column_blocks
    steps = -(-g.in_channels // g.groups // tile.depth)
    tiles = g.groups * choice.row_blocks * visits * steps * tile.depth
    fetched = tiles * (tile.rows + tile.columns)
    return Traffic(fetched, stored, tiles * tile.rows * tile.columns)


def moved_over_compulsory(plan: Plan) -> float | None:
    """Return how many bytes the grid moves for each compulsory one."""
    counted = traffic(plan)
    if counted is None:
        return None
    size = TYPES[plan.choice.specialisation.dtype].element_bytes
    return (counted.fetched + counted.stored) * size / plan.geometry.nbytes(size)
