"""How the gradients' sums over the batch and all positions are split among blocks.

A pure function of the geometry, the element type and the memory order, like all choices: the same
call is summed in the same order every time.
"""

from __future__ import annotations

from math import prod

from .call import Call
from .choice import Constant, GradientChoice, Specialisation, Splits, Tile

LONGEST = 256
"""Terms that a thread adds to one sum before it adds that to another; see weight_gradient.cu."""

LANES = 32
"""Elements of a gradient that one block of ``sum_splits`` adds up."""

ENOUGH = 1024
"""Blocks that keep a card busy."""


def gradient_choice(
    kernel: str,
    call: Call,
    tile: Tile,
    *,
    threads: int,
    step: int,
    most: int,
    shared_bytes: int,
    reason: str,
    group_lanes: int = 1,
    bias_lanes: int = 1,
    constants: tuple[tuple[str, Constant], ...] = (),
) -> GradientChoice:
    """Return how a kernel sums the gradients of weight and bias.

    ``step`` and ``most`` are the positions that a block takes at once and in all.  Neighbouring
    threads sum ``group_lanes`` groups, and ``bias_lanes`` channels of the bias gradient.
    """
    row_blocks = -(-call.channels // tile.rows)
    column_blocks = -(-columns(call) // tile.columns)
    tiles = -(-call.geometry.groups // group_lanes) * row_blocks * column_blocks
    channel_blocks = -(-call.out_shape[1] // bias_lanes)
    at_once = threads // bias_lanes
    weight = _split(_positions(call.x_shape), tiles, step, most)
    bias = _split(_positions(call.out_shape), channel_blocks, at_once, LONGEST * at_once)
    of_weight, of_bias = call.wanted
    elements = prod(call.geometry.weight_shape) if of_weight else 0
    channels = call.geometry.out_channels if of_bias else 0
    parts = weight.count * elements + bias.count * channels
    weight_blocks = tiles * weight.count if of_weight else 0
    bias_blocks = channel_blocks * bias.count if of_bias else 0
    weight_sums = -(-elements // LANES)
    specialisation = Specialisation(
        kernel=kernel,
        dtype=call.dtype,
        index_bits=call.index_bits,
        threads=threads,
        constants=(
            ("AXES", call.geometry.ndim),
            ("ACTIVATION", "none"),
            ("CHANNEL_LANES", bias_lanes),
            ("ROWS", tile.rows),
            ("COLUMNS", tile.columns),
            *constants,
        ),
        shared_bytes=shared_bytes,
    )
    return GradientChoice(
        specialisation,
        blocks=weight_blocks + bias_blocks,
        reason=reason,
        tile=tile,
        row_blocks=row_blocks,
        column_blocks=column_blocks,
        workspace_bytes=max(1, parts) * call.type.accumulator_bytes,
        second=(_summation(call), weight_sums + -(-channels // LANES)),
        weight=weight,
        bias=bias,
        weight_blocks=weight_blocks,
        weight_sums=weight_sums,
    )


def _summation(call: Call) -> Specialisation:
    threads = 256
    return Specialisation(
        kernel="sum_splits",
        dtype=call.dtype,
        index_bits=call.index_bits,
        threads=threads,
        constants=(
            ("AXES", call.geometry.ndim),
            ("ACTIVATION", "none"),
            ("CHANNEL_LANES", LANES),
        ),
        shared_bytes=threads * call.type.accumulator_bytes,
    )


def columns(call: Call) -> int:
    """Return how many pairs (tap, m) one group of the weight has."""
    return prod(call.geometry.kernel_size) * call.out_channels


def round_up(n: int, multiple: int) -> int:
    """Return the smallest multiple that is not below n."""
    return -(-n // multiple) * multiple


def _positions(shape: tuple[int, ...]) -> int:
    batch, _, *size = shape
    return batch * prod(size)


def _split(terms: int, blocks: int, step: int, most: int) -> Splits:
    """Cut a sum so that there are blocks enough, none with very little to do."""
    size = -(-terms * blocks // ENOUGH)
    size = min(max(round_up(size, step), 8 * step), most)
    return Splits(size, max(1, -(-terms // size)))
