"""What is launched: a kernel, what it is specialised by, and how many blocks of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from .call import TYPES, Strides
from .tensor_map import TensorMap

Constant = int | bool | str
"""A constant of a kernel; a string is an enumerator."""


@dataclass(frozen=True, slots=True)
class Specialisation:
    """All that a kernel is compiled for; image sizes are not part of it.

    ``constants`` are the ``constexpr`` lines of its prologue, ``specialisation["AXES"]`` is one.
    """

    kernel: str
    dtype: str
    index_bits: int
    threads: int
    constants: tuple[tuple[str, Constant], ...]
    shared_bytes: int = 0
    adjoint: bool = False

    def __getitem__(self, name: str) -> Constant:
        """Return one constant."""
        return dict(self.constants)[name]


@dataclass(frozen=True, slots=True)
class Tile:
    """What one block of a matrix product computes, and how its threads share that."""

    rows: int
    columns: int
    depth: int
    thread_rows: int
    thread_columns: int

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.rows // self.thread_rows * (self.columns // self.thread_columns)

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}"


@dataclass(frozen=True, slots=True)
class Boxes:
    """How the rows of a matrix product are cut into boxes that Hopper's copy engine can fetch.

    A box has some ``images``, and in each a rectangle of ``sizes`` positions; there are
    ``image_blocks`` times ``counts`` of them.  ``x``, ``weight`` and ``out`` are what the engine is
    told; ``out`` has a map for each phase, or none where threads store.
    """

    images: int
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    image_blocks: int
    x: TensorMap
    weight: TensorMap
    out: tuple[TensorMap, ...]

    @property
    def count(self) -> int:
        """Boxes of everything."""
        return self.image_blocks * prod(self.counts)


@dataclass(frozen=True, slots=True)
class Transposition:
    """A copy of an argument, made first, that a kernel reads in its place.

    The argument's elements b, i, j have these ``sizes`` and ``strides``; the copy has its i side by
    side, ``copied`` are its strides of b and j, and it has so many ``elements``, those that fill it
    up among them.  ``argument`` counts x, weight.
    """

    argument: int
    specialisation: Specialisation
    sizes: tuple[int, int, int]
    strides: tuple[int, int, int]
    copied: tuple[int, int]
    elements: int

    @property
    def counts(self) -> tuple[int, int]:
        """Blocks along i and along j."""
        side = int(self.specialisation["ROWS"])
        return -(-self.sizes[1] // side), -(-self.sizes[2] // side)

    @property
    def blocks(self) -> int:
        """Blocks of everything."""
        return self.sizes[0] * prod(self.counts)

    @property
    def nbytes(self) -> int:
        """Bytes of the copy."""
        return TYPES[self.specialisation.dtype].element_bytes * self.elements


@dataclass(frozen=True, slots=True)
class WarpTile:
    """What one block of a matrix product on tensor cores computes, and how its warps share that."""

    rows: int
    columns: int
    depth: int
    warp_rows: int
    warp_columns: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}x{self.depth}"


@dataclass(frozen=True, slots=True)
class Choice:
    """A kernel, how it is launched on one geometry, and why it was chosen.

    Matrix products have a tile, and columns that are filled up to whole blocks or not.  Kernels of
    runs count these: neighbouring outputs, in one row and in one channel (where channels are
    nearest: in one row, and in one vector of channels).

    Kernels take pointers to x, weight, bias and out, and the parameters.  A constant ``X_VECTOR``,
    ``WEIGHT_VECTOR`` or ``OUT_VECTOR`` of a specialisation is how many elements the kernel moves at
    once: the array then begins at a multiple of so many.  A choice may have a ``second`` pass, a
    specialisation and a number of blocks; what it needs of the first lies in ``workspace_bytes``,
    to which both passes take a pointer after out.  A second pass of no blocks is compiled only,
    because another image size will need it.

    A kernel whose choice has ``splits`` lets so many blocks share each sum.  It takes them too, and
    a pointer to a workspace even if there is none.

    Where a choice has ``transpositions``, these arguments are copied first, and the kernel reads
    the copies, which lie as ``strides`` say.

    A kernel whose choice has ``boxes`` takes them too, and tensor maps of x, weight and out.  It is
    persistent: ``blocks`` counts its tiles, and it is launched with as many blocks as the device
    has multiprocessors, if there are so many tiles.  Its blocks form clusters of ``CLUSTER``; their
    rows are filled up to whole clusters.

    ``refusals`` say why families that are preferred were not chosen.
    """

    specialisation: Specialisation
    blocks: int
    reason: str
    tile: Tile | WarpTile | None = None
    phase_columns: int = 1
    row_blocks: int = 1
    column_blocks: int = 1
    splits: int | None = None
    row_runs: int = 1
    group_runs: int = 1
    workspace_bytes: int = 0
    second: tuple[Specialisation, int] | None = None
    boxes: Boxes | None = None
    transpositions: tuple[Transposition, ...] = ()
    strides: Strides | None = None
    refusals: tuple[str, ...] = ()

    @property
    def passes(self) -> tuple[tuple[Specialisation, int], ...]:
        """Every specialisation that is launched, and its blocks."""
        before = ((t.specialisation, t.blocks) for t in self.transpositions)
        after = () if self.second is None else (self.second,)
        return (*before, (self.specialisation, self.blocks), *after)


@dataclass(frozen=True, slots=True)
class Splits:
    """A long sum cut into parts of one size; a block adds up one part."""

    size: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientChoice(Choice):
    """How the gradients of weight and bias are summed: parts first, then the parts.

    The first pass has ``weight_blocks`` blocks for the weight, the second ``weight_sums``; the rest
    are for the bias.
    """

    weight: Splits
    bias: Splits
    weight_blocks: int
    weight_sums: int
