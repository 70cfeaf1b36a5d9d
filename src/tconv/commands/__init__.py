"""The commands of ``python -m tconv``, one module each."""

import os
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager

SUFFIXES = (".png", ".jpg", ".pdf", ".svg")
"""What can be drawn to."""


class CommandError(Exception):
    """What the user must change; printed as one line, with exit status 2."""


@contextmanager
def writing(option: str, path: str) -> Iterator[None]:
    """Say which option named the file that cannot be written."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"cannot write {option} {path}: {error.strerror}") from None


def check_writeable(option: str, path: str) -> None:
    """Raise unless a file can be written there; called before the work that fills it."""
    is_new = not os.path.lexists(path)
    with writing(option, path), open(path, "a", encoding="utf-8"):
        pass
    if is_new:
        os.unlink(path)


def check_drawing(option: str, path: str) -> None:
    """Raise unless a drawing can be written there; called before the work that it shows."""
    if os.path.splitext(path)[1].lower() not in SUFFIXES:
        raise CommandError(f"{option} {path} must end in {', '.join(SUFFIXES)}")
    check_writeable(option, path)


def whole(text: str) -> int:
    """Return the number that an option spells, at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number, at least 1")
    return int(text)


def num_threads() -> int:
    """Return how many threads tconv uses on the CPU."""
    from .._cpu import pool

    try:
        return pool.num_threads()
    except ValueError as error:
        raise CommandError(str(error)) from None
