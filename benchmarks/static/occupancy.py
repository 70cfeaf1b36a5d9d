"""How many threads of a kernel a multiprocessor can hold, by the rules of the CUDA guide."""

from __future__ import annotations

from typing import NamedTuple

REGISTERS = 65536
"""Of a multiprocessor, in four parts; warps get them 256 at a time."""


class Limits(NamedTuple):
    """What one multiprocessor has room for."""

    threads: int
    blocks: int
    shared_bytes: int
    reserved_bytes: int
    """Shared memory that the system takes of each block."""
    granularity: int
    """Shared memory is given out in multiples of this."""


LIMITS = {
    75: Limits(1024, 16, 64 << 10, 0, 256),
    80: Limits(2048, 32, 164 << 10, 1024, 128),
    86: Limits(1536, 16, 100 << 10, 1024, 128),
    89: Limits(1536, 24, 100 << 10, 1024, 128),
    90: Limits(2048, 32, 228 << 10, 1024, 128),
    100: Limits(2048, 32, 228 << 10, 1024, 128),
    120: Limits(1536, 24, 100 << 10, 1024, 128),
}
"""By compute capability as two digits, from the table of technical specifications."""


def blocks(capability: int, threads: int, registers: int, shared_bytes: int) -> int:
    """Return how many blocks a multiprocessor holds at once.

    >>> blocks(90, threads=128, registers=168, shared_bytes=26880)
    3
    """
    limits = LIMITS[capability]
    warps = -(-threads // 32)
    shared = _round_up(shared_bytes + limits.reserved_bytes, limits.granularity)
    warps_of_part = REGISTERS // 4 // _round_up(registers * 32, 256)
    return min(
        limits.blocks,
        limits.threads // (warps * 32),
        warps_of_part * 4 // warps,
        limits.shared_bytes // shared if shared else limits.blocks,
    )


def occupancy(capability: int, threads: int, registers: int, shared_bytes: int) -> float:
    """Return the share of a multiprocessor's threads that this kernel can keep resident."""
    resident = blocks(capability, threads, registers, shared_bytes) * _round_up(threads, 32)
    return resident / LIMITS[capability].threads


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple
