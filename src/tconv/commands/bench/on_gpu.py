"""``python -m tconv bench --gpu``: options in, tables, a file and pictures out."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from ... import gpu as tconv_gpu
from .. import CommandError, check_writeable, writing
from . import gpu, suite
from .measure import Plan

GROUPS = (*suite.CPU_GROUPS, "kernelbench")
MOST_JOBS = 32
"""Processes that compile kernels; each has an interpreter and CuPy in memory."""


def run(options: argparse.Namespace) -> int:
    """Measure, print, write and draw; 1 if tconv failed or was wrong on a layer."""
    begin = time.perf_counter()
    layers = suite.select(suite.load(cpu=False), options.rows, options.group, GROUPS)
    variants = _variants(options.dtype)
    if options.prepare:
        return _prepare(layers, variants, options.prepare, gradients=options.gradients)
    reason = tconv_gpu.why_not()
    if reason is not None:
        raise CommandError(f"cannot measure on the GPU: {reason}")
    from rich.console import Console
    from rich.progress import Progress

    from . import report
    from .cuda import Cuda

    if options.pictures:
        check_pictures(options.pictures)
    machine = Cuda()
    results = _results(options.json, machine, variants, report.circumstances())
    _prepare(layers, variants, machine.capability, gradients=options.gradients)

    def keep(results: gpu.GpuResults) -> None:
        progress.update(task, advance=1)
        if options.json:
            _write(options.json, results)

    plan = Plan(
        np.dtype(np.float32),
        threads=1,
        rounds=options.rounds,
        seconds=options.seconds - (time.perf_counter() - begin),
        with_gradients=options.gradients,
    )
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rows", total=len(layers) * len(variants))
        gpu.run(layers, variants, plan, machine, results, keep)
    report.print_gpu_tables(results)
    if options.json:
        _write(options.json, results)
    if options.pictures:
        draw(results, options.pictures)
    return 0 if results.all_right else 1


def _variants(given: list[str] | None) -> list[str]:
    for name in given or ():
        if name not in gpu.VARIANTS:
            known = ", ".join(gpu.VARIANTS)
            raise CommandError(f"there is no dtype {name!r} here; the dtypes are {known}")
    return given or [name for name in gpu.VARIANTS if name != "float64"]


def _prepare(
    layers: list[suite.Layer], variants: list[str], capability: int, *, gradients: bool
) -> int:
    jobs = min(os.cpu_count() or 1, MOST_JOBS)
    try:
        count = gpu.prepare(layers, variants, capability, jobs, gradients=gradients)
    except ImportError:
        raise CommandError("compiling kernels needs CuPy; pip install 'tconv[cuda13x]'") from None
    except RuntimeError as error:
        raise CommandError(str(error)) from None
    print(f"{count} kernels are compiled for compute capability {capability / 10}")
    return 0


def _results(
    path: str | None, machine: gpu.Machine, variants: list[str], circumstances: dict[str, Any]
) -> gpu.GpuResults:
    """Return what a file holds of the same device and commit, or nothing yet."""
    facts = {**circumstances, **machine.facts()}
    if path is None:
        return gpu.GpuResults(facts, machine.ceilings(variants))
    check_writeable("--json", path)
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        return gpu.GpuResults(facts, machine.ceilings(variants))
    try:
        held = json.loads(Path(path).read_text("utf-8"))
        for name in ("commit", "device"):
            if held[name] != facts[name]:
                raise CommandError(
                    f"--json {path} holds rows of {name} {held[name]}, this is {facts[name]}"
                )
        ceilings = dict(held["ceilings"])
        rows = [gpu.GpuRow.from_dict(row) for row in held["rows"]]
    except (ValueError, LookupError, TypeError):  # no JSON, or not what we write
        raise CommandError(
            f"--json {path} holds no rows of a run on a GPU; name another file"
        ) from None
    unknown = [variant for variant in variants if variant not in ceilings]
    return gpu.GpuResults(facts, ceilings | machine.ceilings(unknown), rows)


def _write(path: str, results: gpu.GpuResults) -> None:
    """Write the whole file under another name first, so that it is never cut short."""
    new = f"{path}.new"
    with writing("--json", path):
        Path(new).write_text(json.dumps(results.as_dict(), indent=1) + "\n", "utf-8")
        os.replace(new, path)


def check_pictures(folder: str) -> None:
    """Make the folder; raise unless pictures can be drawn into it, before the work they show."""
    try:
        from . import pictures  # noqa: F401
    except ImportError:
        raise CommandError("--pictures needs Matplotlib; pip install 'tconv[demo]'") from None
    with writing("--pictures", folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass


def draw(results: gpu.GpuResults, folder: str) -> None:
    """Draw the pictures of a run into a folder."""
    from . import pictures

    for path in pictures.draw(results, Path(folder)):
        print(path)
