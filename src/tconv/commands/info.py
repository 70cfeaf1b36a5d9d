"""``python -m tconv info``: what tconv found on this machine."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "info", help="show versions, devices and folders", description=__doc__
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:  # noqa: ARG001
    """Print the configuration."""
    from .._config import show_config

    show_config()
    return 0
