"""mma: all phases as one matrix product on tensor cores, by warps."""

from __future__ import annotations

from math import prod

from ..call import Call
from ..choice import Choice, Specialisation, WarpTile
from .gemm import table_bytes

THREADS = 256
LINE = 128
"""Bytes of a row or of a column that one step brings into shared memory."""

SHAPES = ((128, 128, 64, 32), (128, 64, 32, 32), (128, 32, 32, 16), (128, 16, 16, 16))
TILES = {size: tuple(WarpTile(r, c, LINE // size, *w) for r, c, *w in SHAPES) for size in (2, 4)}
"""Tiles by the size in bytes of an element, from wide to narrow; 8 warps share each."""

SHARED_KILOBYTES = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 120: 99}
"""The most shared memory of a block by compute capability; a newer one has that of the last."""


def choose(call: Call, *, asked: bool = False, tile: WarpTile | None = None) -> Choice | str:
    """Return how mma computes a call, or why it does not."""
    instruction = _instruction(call)
    if instruction is None:
        return _why_not(call)
    columns = call.phases * call.out_channels
    if not asked and min(call.channels, columns) < 8:
        return (
            f"{call.channels} input channels and {columns} columns (phase, m) a group: a tensor "
            "core multiplies 8 of each"
        )
    tiles = (tile,) if tile else _fitting(call)
    tile, phase_columns, share = _best_tile(call, tiles)
    row_blocks = -(-call.rows // tile.rows)
    column_blocks = -(-call.phases * phase_columns // tile.columns)
    stages, interleaved = _stages(call, tile), _interleaved(call, tile, phase_columns)
    specialisation = Specialisation(
        kernel="mma",
        dtype=call.dtype,
        index_bits=call.index_bits,
        threads=THREADS,
        constants=(
            ("AXES", call.geometry.ndim),
            ("ACTIVATION", call.activation or "none"),
            ("OUT_CHANNELS_LAST", call.out_channels_last),
            ("MMA", instruction),
            ("ROWS", tile.rows),
            ("COLUMNS", tile.columns),
            ("WARP_ROWS", tile.warp_rows),
            ("WARP_COLUMNS", tile.warp_columns),
            ("STAGES", stages),
            ("ASYNC", call.capability >= 80),
            ("WHOLE_CHUNKS", call.channels % (16 // call.type.element_bytes) == 0),
            ("X_VECTOR", _x_vector(call)),
            ("WEIGHT_VECTOR", _weight_vector(call)),
            ("WEIGHT_PACKED", _weight_packed(call)),
            ("OUT_VECTOR", _out_vector(call, interleaved)),
            ("INTERLEAVED", interleaved),
        ),
        shared_bytes=_shared_bytes(call, tile, stages),
        adjoint=call.adjoint,
    )
    return Choice(
        specialisation,
        blocks=call.geometry.groups * row_blocks * column_blocks,
        reason=f"tensor cores; {share:.0%} of the products in their tiles are wanted",
        tile=tile,
        phase_columns=phase_columns,
        row_blocks=row_blocks,
        column_blocks=column_blocks,
    )


def _instruction(call: Call) -> str | None:
    if call.dtype == "float16" and call.capability >= 75:
        return "F16" if call.capability >= 80 else "F16_K8"
    if call.capability < 80:
        return None
    if call.dtype == "float32" and call.precision in ("tf32", "tf32x3"):
        return call.precision
    return "BF16" if call.dtype == "bfloat16" else None


def _why_not(call: Call) -> str:
    if call.dtype == "float32" and call.precision in (None, "ieee"):
        return "float32 on tensor cores is for precision='tf32' and 'tf32x3'"
    if call.dtype in ("float16", "bfloat16", "float32"):
        major, minor = divmod(call.capability, 10)
        return f"compute capability {major}.{minor} has no tensor cores for {call.dtype}"
    return f"no tensor cores for {call.dtype} are used"


def _fitting(call: Call) -> tuple[WarpTile, ...]:
    """Return the tiles of which two stages fit into shared memory, and whose sums into registers.

    Three products of TF32 need twice the registers for what is multiplied, and two operands of
    float32 that are both gathered along three axes some more.  Neither the width of offsets nor how
    far items lie apart matters, since an item's bits depend on the tile.
    """
    gathered = _x_vector(call.item) == _weight_vector(call) == 1
    many = call.dtype == "float32" and call.geometry.ndim == 3 and gathered
    widest = 64 if many or call.precision == "tf32x3" else 128
    limit = _shared_limit(call)
    return tuple(
        tile
        for tile in TILES[call.type.element_bytes]
        if tile.columns <= widest and _shared_bytes(call, tile, 2) <= limit
    )


def _stages(call: Call, tile: WarpTile) -> int:
    """Return how many steps fit into shared memory, of which all but one are on their way."""
    if call.capability < 80:
        return 2
    return max(s for s in (2, 3, 4) if _shared_bytes(call, tile, s) <= _shared_limit(call))


def _shared_limit(call: Call) -> int:
    known = max(c for c in SHARED_KILOBYTES if c <= call.capability)
    return SHARED_KILOBYTES[known] << 10


def _shared_bytes(call: Call, tile: WarpTile, stages: int) -> int:
    """Return the size of the kernel's ``Shared``; the kernel asserts it."""
    ring = stages * (tile.rows + tile.columns) * LINE
    last = call.out_channels_last
    sums = tile.rows * (tile.columns + 8) if last else tile.columns * (tile.rows + 4)
    return _round_up(max(ring, 4 * sums) + table_bytes(call, tile.rows, tile.columns), 16)


def _best_tile(call: Call, tiles: tuple[WarpTile, ...]) -> tuple[WarpTile, int, float]:
    """Return the tile that wastes least, how many columns a phase gets, and the share of use.

    As for gemm, a phase has M columns or fills its last block up.  Channels fill up chunks of
    16 bytes.
    """
    shifts = prod(axis.shifts for axis in call.axes)
    taps = prod(call.geometry.kernel_size)
    depth = _round_up(call.channels, 16 // call.type.element_bytes)
    options = []
    for tile in tiles:
        filled = _round_up(call.out_channels, tile.columns)
        mixed = _round_up(call.phases * call.out_channels, tile.columns)
        for phase_columns, products in (
            (call.out_channels, mixed * shifts),
            (filled, filled * taps),
        ):
            stores = call.phases * phase_columns
            # A narrower tile loads x more often for each product.
            narrowness = 1 + 32 / tile.columns
            cost = (products * depth + stores) * narrowness
            options.append((cost, tile, phase_columns, products * depth))
    _, tile, phase_columns, products = min(options, key=lambda option: option[0])
    useful = taps * call.out_channels * call.channels
    return tile, phase_columns, useful / max(products, 1)


def _x_vector(call: Call) -> int:
    """Return how many channels of x are moved at once."""
    n, c, *spatial = call.strides.x
    return _vector(call, c, (call.channels, n, *spatial))


def _weight_packed(call: Call) -> bool:
    """Tell whether 16 bytes of the weight are always output channels with the same tap."""
    widest = 16 // call.type.element_bytes
    group, c, m, *taps = call.weight_strides
    return m == 1 and all(n % widest == 0 for n in (call.out_channels, group, c, *taps))


def _weight_vector(call: Call) -> int:
    """Return how many channels of the weight, or columns of a packed one, are moved at once."""
    if _weight_packed(call):
        return 16 // call.type.element_bytes
    group, c, *others = call.weight_strides
    return _vector(call, c, (call.channels, group, *others))


def _out_vector(call: Call, interleaved: bool) -> int:
    """Return how many outputs are stored at once: channels, or phases, if these fill vectors."""
    n, m, *spatial = call.strides.out
    if call.out_channels_last:
        return _vector(call, m, (call.out_channels, n, *spatial))
    axis = call.axes[-1]
    aligned = interleaved and axis.r_begin == 0
    return _vector(call, spatial[-1], (axis.stride,)) if aligned else 1


def _vector(call: Call, step: int, others: tuple[int, ...]) -> int:
    """Return the widest vector, up to 16 bytes, that channels can be moved in."""
    if step != 1:
        return 1
    widest = 16 // call.type.element_bytes
    return max(v for v in (1, 2, 4, 8) if v <= widest and all(n % v == 0 for n in others))


def _interleaved(call: Call, tile: WarpTile, phase_columns: int) -> bool:
    """Tell whether a block stores the phases of the last axis together, where they are neighbours.

    Their columns lie side by side.  Those of a packed weight cannot, but may all be in one block.
    """
    phases = call.axes[-1].phases
    if call.out_channels_last or phases == 1:
        return False
    if _weight_packed(call):
        return tile.columns % (phases * phase_columns) == 0
    return phase_columns % tile.columns != 0 and phases <= tile.columns


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
