"""depthwise_channels_last: each channel by itself, where channels are nearest in memory."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod

from ..call import Call
from ..choice import Choice, Specialisation, Tile
from .depthwise import MOST_PRODUCTS
from .runs import EXPENSIVE, can_be_written_out, window

THREADS = 128
MOST_WORDS = {4: 106, 3: 150, 2: 200}
"""Of 4 bytes, that a thread may keep in registers (inputs, weights, sums and pointers), by how many
blocks a multiprocessor has at once, at least."""
ROOMY_BLOCKS = 2
"""Where more than what is counted needs registers."""

MOST_LANES, LEAST_LANES = 32, 8
"""Vectors of channels that lie side by side in a block."""
MOST_SHARED_BYTES = 48 << 10
WALKS = (32, 16, 8)
"""How many q a thread may walk along; the first inputs and the weights are brought in for each."""
ENOUGH_THREADS = 8192
"""For one item.  A small one takes shorter walks."""


@dataclass(frozen=True, slots=True)
class Step:
    """What a thread computes in a round: ``q`` neighbours in all phases, of some rows."""

    q: int
    phases_y: int
    channels: int
    weights_held: bool
    blocks: int


def choose(call: Call, *, asked: bool = False, tile: Tile | None = None) -> Choice | str:  # noqa: ARG001
    """Return how the kernel computes a call, or why it does not."""
    g = call.geometry
    if (call.channels, call.out_channels) != (1, 1):
        return f"groups of {call.channels} to {call.out_channels} channels are not single channels"
    if not asked and not call.strides.x[1] == call.strides.out[1] == 1:
        return "channels are not nearest in memory"
    if not can_be_written_out(g):
        return "the window is too large to be written out by the compiler"
    step = _best(call)
    if step is None:
        size = "x".join(map(str, g.kernel_size))
        return f"a {size} window does not fit a thread's registers"
    specialisation = _specialisation(call, step)
    vectors = g.groups // step.channels
    column_blocks = -(-vectors // int(specialisation["CHANNEL_LANES"]))
    rows = [axis.q_size if step.phases_y > 1 else axis.out_size for axis in call.axes[-2:-1]]
    item_rows = prod(axis.out_size for axis in call.axes[:-2]) * prod(rows)
    row_runs = _walks(call.axes[-1].q_size, step.q, item_rows * vectors)
    group_runs = g.batch * item_rows * row_runs
    walkers = THREADS // -(-vectors // column_blocks)
    row_blocks = -(-group_runs // walkers)
    return Choice(
        specialisation,
        blocks=column_blocks * row_blocks,
        reason="single channels, nearest in memory: memory decides",
        row_blocks=row_blocks,
        column_blocks=column_blocks,
        row_runs=row_runs,
        group_runs=group_runs,
    )


def walk(q_size: int, row_runs: int, step: int) -> int:
    """Return how many q each thread walks along where so many share a row."""
    return -(-q_size // (row_runs * step)) * step


def _walks(q_size: int, step: int, rows: int) -> int:
    """Return how many threads share a row: few, unless an item has few rows."""
    for longest in WALKS:
        row_runs = -(-q_size // longest)
        if rows * row_runs >= ENOUGH_THREADS:
            break
    return -(-q_size // walk(q_size, row_runs, step))


def _best(call: Call) -> Step | None:
    """Return the first step that fits a thread and a block.

    Weights that are held come first; then wide vectors, because they need fewest instructions; then
    the phases of the axis before the last, which share the inputs; then many blocks; then many q,
    whose inputs are loaded together.
    """
    g, size = call.geometry, call.type.element_bytes
    vectors = [n for n in (8, 4, 2, 1) if n * size <= 16 and _in_vectors(call, n)]
    phases = dict.fromkeys((call.axes[-2].stride if g.ndim > 1 else 1, 1))
    options = product((True, False), vectors, phases, MOST_WORDS, (4, 2, 1))
    for held, channels, phases_y, blocks, q in options:
        step = Step(q, phases_y, channels, held, blocks)
        if _fits(call, step):
            return step
    return None


def _in_vectors(call: Call, channels: int) -> bool:
    """Tell whether x and the result are made of whole vectors of so many channels."""
    if channels == 1:
        return True
    x, out = call.strides.x, call.strides.out
    steps = (call.geometry.groups, x[0], out[0], *x[2:], *out[2:])
    return x[1] == out[1] == 1 and all(n % channels == 0 for n in steps)


def _fits(call: Call, step: Step) -> bool:
    """Tell whether a thread's registers and a block's shared memory hold what a step needs."""
    g = call.geometry
    rows = prod(axis.shifts for axis in call.axes[:-1])
    axis = call.axes[-1]
    last_shift = (g.kernel_size[-1] - 1) * g.dilation[-1] // axis.stride
    inputs = rows * (last_shift + (step.q - 1) * axis.in_stride + 1)
    taps = rows * g.kernel_size[-1]
    if step.phases_y > 1:  # In all phases every tap of that axis takes part, in one some do.
        taps = taps // call.axes[-2].shifts * g.kernel_size[-2]
    sums = step.phases_y * step.q * axis.stride
    numbers = step.channels * (inputs + sums + (taps if step.weights_held else 1))
    pointers = rows + step.phases_y
    return (
        numbers * call.type.accumulator_bytes // 4 + 2 * pointers <= MOST_WORDS[step.blocks]
        and step.channels * step.q * taps <= MOST_PRODUCTS
        and _lanes(call, step) >= LEAST_LANES
    )


def _lane_bytes(call: Call, step: Step) -> int:
    """Return the bytes of a thread's weights in shared memory, a row of zeros among them."""
    *outer, last = call.geometry.kernel_size
    return (prod(outer) + 1) * last * step.channels * call.type.element_bytes


def _lanes(call: Call, step: Step) -> int:
    return min(MOST_LANES, MOST_SHARED_BYTES // _lane_bytes(call, step) - 1)


def _specialisation(call: Call, step: Step) -> Specialisation:
    g, lanes = call.geometry, _lanes(call, step)
    roomy = not step.weights_held or call.index_bits == 64 or call.activation in EXPENSIVE
    return Specialisation(
        kernel="depthwise_channels_last",
        dtype=call.dtype,
        index_bits=call.index_bits,
        threads=THREADS,
        constants=(
            ("AXES", g.ndim),
            ("ACTIVATION", call.activation or "none"),
            *window(g),
            ("PHASES_Y", step.phases_y),
            ("STEP_Q", step.q),
            ("X_VECTOR", step.channels),
            ("OUT_VECTOR", step.channels),
            ("CHANNEL_LANES", lanes),
            ("WEIGHTS_HELD", step.weights_held),
            ("BLOCKS", ROOMY_BLOCKS if roomy else step.blocks),
        ),
        shared_bytes=-(-_lane_bytes(call, step) * (lanes + 1) // 16) * 16,
        adjoint=call.adjoint,
    )
