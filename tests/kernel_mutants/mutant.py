"""What a mistake in a kernel is, and how it shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One change of one file of ``kernels/``."""

    why: str
    kernel: str
    file: str
    old: str
    new: str
    dtypes: tuple[str, ...] = ("f4", "f2")
    axes: tuple[str, ...] = ("2",)

    def __str__(self):
        return self.why


@dataclass(frozen=True)
class Fault(Mutant):
    """A mistake for a sanitizer to find."""

    build: str = "tsan"
    late: bool = False
    seen: str = "ThreadSanitizer: data race"


OUTSIDE = "AddressSanitizer: heap-"  # what lies outside may be nobody's yet, or nobody's any more
WRONG = "Arrays are not equal"
HALVES = ("f2", "bfloat16")
