"""``python -m tconv bench``: the layers of real models, beside PyTorch and ONNX Runtime.

Every answer is checked before it is timed: each element against sums in float64, within what
rounding can explain, and tconv's also in an array full of NaN.  The contenders take turns in one
process, with the same number of threads and without threads that spin; the figure is the median of
the rounds.  The largest extra memory is that of tconv's first call in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

from .. import CommandError, check_writeable, whole, writing


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "bench", help="time the layers of real models beside other libraries", description=__doc__
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="names of layers (default: all)")
    parser.add_argument(
        "--group", action="append", default=[], help="all layers of a group; may be repeated"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--cpu", action="store_true", help="measure on the CPU (the default)")
    where.add_argument("--gpu", action="store_true", help="measure on the GPU")
    parser.add_argument(
        "--reference", action="store_true", help="also against the definition, on smaller inputs"
    )
    parser.add_argument(
        "--gradients", action="store_true", help="also the gradients of x, weight and bias"
    )
    parser.add_argument("--rounds", type=whole, default=9, help="at most (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=whole, default=300, help="for the whole run (default: %(default)s)"
    )
    parser.add_argument(
        "--dtype",
        action="append",
        help="of the arrays (default: float32); on the GPU also tf32 and tf32x3, and may be "
        "repeated (default: all but float64)",
    )
    parser.add_argument("--threads", type=whole, help="for each library (default: all)")
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write everything measured to a file; on the GPU a file goes on where it ended",
    )
    parser.add_argument(
        "--pictures", metavar="FOLDER", help="draw rooflines and ratios of a run on the GPU"
    )
    parser.add_argument(
        "--prepare",
        metavar="CAPABILITY",
        type=whole,
        help="only compile the kernels for a GPU, 90 for compute capability 9.0; needs none",
    )
    parser.set_defaults(run=partial(run, default=parser.get_default))


UNREAD = {
    "on the CPU": ("pictures",),
    "with --gpu": ("reference", "threads"),
    "with --prepare": ("cpu", "reference", "rounds", "seconds", "threads", "json", "pictures"),
}
"""The options that a run does not read."""


def run(options: argparse.Namespace, default: Callable[[str], Any]) -> int:
    """Measure, print and write; 1 if tconv failed or was wrong on a layer."""
    if find_spec("rich") is None:
        raise CommandError("bench needs rich; pip install 'tconv[bench]'")
    kind = "with --prepare" if options.prepare else "with --gpu" if options.gpu else "on the CPU"
    for name in UNREAD[kind]:
        if getattr(options, name) != default(name):
            raise CommandError(f"--{name} has no effect {kind}; leave it out")
    if options.gpu or options.prepare:
        from . import on_gpu

        return on_gpu.run(options)
    from . import cpu, suite
    from .measure import Plan

    layers = suite.select(suite.load(cpu=True), options.rows, options.group, suite.CPU_GROUPS)
    plan = Plan(
        dtype=suite.as_dtype(_only(options.dtype)),
        threads=cpu.thread_count(options.threads),
        rounds=options.rounds,
        seconds=options.seconds,
        with_reference=options.reference,
        with_gradients=options.gradients,
    )
    if options.json:
        check_writeable("--json", options.json)
    environment = os.environ | cpu.environment(plan.threads)
    if environment != dict(os.environ):
        # NumPy's BLAS has read its variables long since, so begin again with the right ones.
        command = [sys.executable, "-m", "tconv", *options.arguments]
        return subprocess.call(command, env=environment)

    from rich.console import Console
    from rich.progress import Progress

    from . import report

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(layers))

        def started(name: str) -> None:
            progress.update(task, description=name, completed=next(count))

        count = iter(range(len(layers)))
        results = cpu.run(layers, plan, started)
    report.print_tables(results, plan)
    if options.json:
        with writing("--json", options.json), open(options.json, "w", encoding="utf-8") as file:
            report.write_json(file, results, plan)
    return 0 if results.all_right else 1


def _only(dtypes: list[str] | None) -> str:
    if dtypes and len(dtypes) > 1:
        raise CommandError(f"--dtype {' and '.join(dtypes)}: a run on the CPU takes one")
    return dtypes[0] if dtypes else "float32"
