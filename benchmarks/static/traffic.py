"""What the grid of one layer moves and computes, from its geometry and its tile.

A *moved* byte is one that a block asks global memory for, whichever cache answers, or writes there.
The compulsory ones are all of x, the weight and the result, once.

- gather: two elements for each product, and each output.
- A family with a tile: a block fetches a tile of rows (hopper: a box) and one of columns for every
  shift that its columns have a tap at, in whole steps of channels (mma: in whole 16 bytes; gemm:
  whole steps unless there are fewer channels, of which it multiplies each once); absent elements
  count too.  A cluster fetches a tile of columns once for all of its
  blocks.  A second pass reads what the first has written.  Copies that are made first are read and
  written.
- depthwise, direct: a run fetches whole vectors of the inputs that its window spans, for each row
  that has taps, and a block the weights of its channels.  direct_channels_last: single inputs.
- depthwise_channels_last: a walk fetches the inputs from its first window to its last, likewise.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from tconv.gpu.call import Call
from tconv.gpu.choice import Choice, Tile, WarpTile

DIRECT = ("direct", "direct_channels_last")


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
        copied = size * sum(prod(one.sizes) for one in choice.transpositions)
        between = choice.workspace_bytes + copied
        return Traffic(elements * size + between, stored + between, products)
    if choice.specialisation.kernel in ("depthwise", *DIRECT):
        return Traffic(_runs(call, choice) * size, stored, g.products)
    if choice.specialisation.kernel == "depthwise_channels_last":
        return Traffic(_walks(call, choice) * size, stored, g.products)
    if choice.specialisation.kernel == "gather":
        return Traffic(2 * g.products * size, stored, g.products)
    return None


def _tiles(call: Call, choice: Choice, tile: Tile | WarpTile) -> tuple[int, int]:
    """Return the elements that all blocks fetch, and the products that they compute."""
    fetched, multiplied = _channels(call, choice, tile)
    visits = call.geometry.groups * _visits(call, choice, tile)
    rows, weights = choice.row_blocks * tile.rows, choice.row_blocks * tile.columns
    places = rows + weights
    if boxes := choice.boxes:
        places = boxes.count * boxes.images * prod(boxes.sizes)
        places += weights // int(choice.specialisation["CLUSTER"])
    return visits * fetched * places, visits * multiplied * rows * tile.columns


def _channels(call: Call, choice: Choice, tile: Tile | WarpTile) -> tuple[int, int]:
    """Return the channels that a block fetches at a shift, and how many it multiplies."""
    whole = {"mma": 16 // call.type.element_bytes}.get(choice.specialisation.kernel, tile.depth)
    depth = -(-call.channels // whole) * whole
    if choice.specialisation.kernel == "gemm":
        return depth if call.channels > whole else call.channels, call.channels
    return depth, depth


def _visits(call: Call, choice: Choice, tile: Tile | WarpTile) -> int:
    """Return at how many shifts the blocks of columns have a tap, added up."""
    there = np.ones((1, 1), bool)  # has a phase a tap at a shift?
    for a, axis in enumerate(call.axes):
        taps = call.geometry.taps(a)
        stride = call.geometry.stride[a]
        shifts = sorted({shift for phase in taps.values() for _, shift in phase})
        of_phase = [taps.get((p + axis.r_begin) % stride, ()) for p in range(axis.phases)]
        there = np.kron(there, [[s in dict(phase).values() for s in shifts] for phase in of_phase])
    columns = len(there) * choice.phase_columns
    return sum(
        int(there[first // choice.phase_columns : -(-end // choice.phase_columns)].any(0).sum())
        for first in range(0, columns, tile.columns)
        for end in [min(first + tile.columns, columns)]
    )


def _runs(call: Call, choice: Choice) -> int:
    """Return the elements that all runs of neighbouring outputs fetch."""
    s = dict(choice.specialisation.constants)
    inputs = (s["FIRST_PHASE"] + s["RUN_Q"] * s["STRIDE_X"] - 1) // s["STRIDE_X"] + 1
    inputs += _last_shift(s)
    if choice.specialisation.kernel != "direct_channels_last":
        inputs = ((s["X_LEAD"] + inputs - 1) // s["X_VECTOR"] + 1) * s["X_VECTOR"]
    g = call.geometry
    runs = choice.group_runs * g.groups * (call.out_channels // s["OUT_CHANNELS"])
    weights = prod(g.kernel_size) * call.channels * s["OUT_CHANNELS"]
    elements = runs * _rows(call, s) * call.channels * inputs
    return int(elements) + choice.blocks * weights


def _walks(call: Call, choice: Choice) -> int:
    """Return the elements that all walks along channels-last memory fetch."""
    s, g = dict(choice.specialisation.constants), call.geometry
    q = -(-call.axes[-1].q_size // s["STEP_Q"]) * s["STEP_Q"]
    inputs = q + choice.row_runs * _last_shift(s)
    rows = choice.group_runs // choice.row_runs * g.groups
    weights = prod(g.kernel_size) * g.groups * choice.row_blocks
    return int(rows * _rows(call, s) * inputs) + weights


def _last_shift(s: dict[str, int]) -> int:
    return (s["KERNEL_X"] - 1) * s["DILATION_X"] // s["STRIDE_X"]


def _rows(call: Call, s: dict[str, int]) -> Fraction:
    """Return the rows of inputs that a thread needs.

    With all phases of the axis before the last these are the rows of every shift, else on average
    those of its own.
    """
    if s["PHASES_Y"] > 1:
        return Fraction(call.axes[-2].shifts * s["KERNEL_Z"], s["STRIDE_Z"])
    return Fraction(s["KERNEL_Y"] * s["KERNEL_Z"], s["STRIDE_Y"] * s["STRIDE_Z"])
