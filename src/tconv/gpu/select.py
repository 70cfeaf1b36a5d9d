"""Which kernel computes a call, and why.

A pure function of the geometry, the element type, the memory order and the device's compute
capability.  Neither the batch nor an address ever changes which kernel or tile is chosen, so an
item gives the same bits in any batch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .call import Call
from .choice import Choice
from .families import OPERATIONS


def select(call: Call, *, kernel: str | None = None, tile: Any = None) -> Choice:
    """Choose the first family that suits; ``kernel`` and a ``tile`` of its kind force a choice."""
    families = OPERATIONS[call.operation]
    if kernel is not None:
        choice = families[kernel](call, asked=True, tile=tile)
        if isinstance(choice, str):
            raise ValueError(f"the {kernel} kernel cannot compute this: {choice}")
        return replace(choice, reason="asked for by name")
    refusals: list[str] = []
    for name, choose in families.items():
        choice = choose(call, asked=False, tile=None)
        if isinstance(choice, Choice):
            return replace(choice, refusals=tuple(refusals))
        refusals.append(f"not {name}: {choice}")
    raise AssertionError("the last family computes everything")
