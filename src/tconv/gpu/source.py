"""One self-contained CUDA source from the files in ``kernels/``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from .choice import Specialisation
from .prologue import prologue

_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)
_ONCE = re.compile(r"^#pragma once\n", re.MULTILINE)


def kernels() -> Traversable:
    """Return the folder of kernels: inside an installed package, beside ``src/`` in a checkout."""
    package = files("tconv")
    installed = package / "kernels"
    return installed if installed.is_dir() else package / ".." / ".." / "kernels"


@cache
def read(name: str) -> str:
    """Return the text of one file of the folder."""
    return (kernels() / name).read_text("utf-8")


def source(specialisation: Specialisation, headers: Mapping[str, str] | None = None) -> str:
    """Return a kernel with its prologue and all of its headers in it.

    ``headers`` gives texts to put in place of files: that is how the prologue gets in, and how the
    tests put their own primitives in.
    """
    texts = {"prologue.cuh": prologue(specialisation), **(headers or {})}
    return flatten(f"{specialisation.kernel}.cu", texts)


def flatten(name: str, texts: Mapping[str, str]) -> str:
    """Return a file of the folder with its includes in their place."""
    text = _ONCE.sub("", texts[name] if name in texts else read(name))
    return _INCLUDE.sub(lambda match: flatten(match[1], texts), text)
