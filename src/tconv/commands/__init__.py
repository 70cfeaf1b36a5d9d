"""The commands of ``python -m tconv``, one module each."""

import os


class CommandError(Exception):
    """What the user must change; printed as one line, with exit status 2."""


def check_writeable(option: str, path: str) -> None:
    """Raise unless a file can be written there; called before the work that fills it."""
    is_new = not os.path.lexists(path)
    try:
        with open(path, "a", encoding="utf-8"):
            pass
    except OSError as error:
        raise CommandError(f"cannot write {option} {path}: {error.strerror}") from None
    if is_new:
        os.unlink(path)
