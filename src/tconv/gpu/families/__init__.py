"""The kernel families, one module for each file in ``kernels/``.

``choose(call, asked=..., tile=...)`` returns how the family computes a call, or a sentence that
says why it does not.  A family that was asked for by name answers unless it cannot.
"""

from __future__ import annotations

from typing import Any, Protocol

from ..call import Call, Operation
from ..choice import Choice
from . import (
    depthwise,
    depthwise_channels_last,
    direct,
    direct_channels_last,
    gather,
    gemm,
    hopper,
    mma,
    weight_gradient,
    weight_gradient_narrow,
)


class Choose(Protocol):
    """How a family answers."""

    def __call__(self, call: Call, *, asked: bool, tile: Any) -> Choice | str:
        """Return how the family computes a call, or why it does not."""


ADJOINT: dict[str, Choose] = {
    "depthwise": depthwise.choose,
    "depthwise_channels_last": depthwise_channels_last.choose,
    "mma": mma.choose,
    "direct": direct.choose,
    "direct_channels_last": direct_channels_last.choose,
    "gemm": gemm.choose,
    "gather": gather.choose,
}
"""By the name of the kernel, from the most special to the one that can compute everything."""

FAMILIES: dict[str, Choose] = {"hopper": hopper.choose} | ADJOINT
"""Likewise, for the transposed convolution itself."""

WEIGHT_GRADIENT: dict[str, Choose] = {
    "weight_gradient": weight_gradient.choose,
    "weight_gradient_narrow": weight_gradient_narrow.choose,
}
"""Likewise, for the gradients of weight and bias."""

OPERATIONS: dict[Operation, dict[str, Choose]] = {
    "transposed_conv": FAMILIES,
    "conv": ADJOINT,
    "weight_gradient": WEIGHT_GRADIENT,
}
