"""Copies of arguments in another order of memory, made before a kernel that needs them so."""

from __future__ import annotations

from .call import TYPES, Call
from .choice import Specialisation, Transposition

SIDE, THREADS = 64, 256
"""Elements along both sides of the square that a block copies, and its threads."""


def transposition(
    call: Call,
    argument: int,
    sizes: tuple[int, int, int],
    strides: tuple[int, int, int],
    copied: tuple[int, int],
) -> Transposition:
    """Return how an argument's elements (b, i, j) are copied so that its i are side by side."""
    size = TYPES[call.dtype].element_bytes
    ends = ((n - 1) * abs(step) for n, step in zip(sizes, strides, strict=True))
    elements = max(sizes[0] * copied[0], sizes[2] * copied[1])
    far = max(sum(ends), elements) + SIDE * max(*map(abs, strides), *copied)
    specialisation = Specialisation(
        kernel="transpose",
        dtype=call.dtype,
        index_bits=32 if far < 2**31 else 64,
        threads=THREADS,
        constants=(("AXES", 1), ("ACTIVATION", "none"), ("ROWS", SIDE)),
        shared_bytes=SIDE * (SIDE + 4 // size) * size,
    )
    return Transposition(argument, specialisation, sizes, strides, copied, elements)
