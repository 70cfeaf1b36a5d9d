"""The gradients on the GPU: not there yet, and saying so."""

from __future__ import annotations

from typing import Any, NoReturn

from .._dispatch import Gradients


def _not_yet(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise RuntimeError(
        "tconv has no GPU kernel for conv and for gradients yet; pass NumPy arrays (x.get())"
    )


GRADIENTS = Gradients(_not_yet, _not_yet, _not_yet)
