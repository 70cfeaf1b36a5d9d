"""The command line: ``python -m tconv info | demo | bench``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from . import __version__
from .commands import CommandError, bench, demo, info

INTERRUPTED = 128 + 2
"""Exit status after Ctrl-C, as shells count it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="tconv", description="Transposed convolution for NumPy and CuPy arrays."
    )
    parser.add_argument("--version", action="version", version=f"tconv {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (info, demo, bench):
        command.add_parser(subparsers)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    options.arguments = arguments  # for a command that must begin again in a fresh process
    try:
        status: int = options.run(options)
        if sys.stdout is not None:  # as it is where the output is closed
            sys.stdout.flush()
    except CommandError as error:
        print(f"tconv: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        # Our output cannot be written; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever read it has gone
            return 1
        print(f"tconv: {error}", file=sys.stderr)
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
