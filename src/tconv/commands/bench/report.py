"""The results as a table and as JSON."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

from ..._config import PACKAGE, cpu_model, versions
from .gpu import LAYER, OURS, GpuResults
from .gpu import PEERS as GPU_PEERS
from .measure import Plan
from .peers import ONNX_RUNTIME, PEERS, PYTORCH, REFERENCE, TCONV, missing_packages, peer_version
from .results import Results, Row

WIDTH = 130
"""Columns of the table where the output is no terminal."""

AnyRow = TypeVar("AnyRow", bound=Row)


def print_tables(results: Results, plan: Plan) -> None:
    """Print the rows with their means at the foot, and what there is to say about them."""
    console = _console()
    if results.rows:
        console.print(_main_table(results, plan))
    if results.gradient_rows:
        console.print(_gradient_table(results, plan))
    if results.reference_rows:
        console.print(_reference_table(results))
    for line in remarks(results, plan):
        console.print(line, soft_wrap=True, markup=False)


def print_gpu_tables(results: GpuResults) -> None:
    """Print a table for each variant, and what there is to say about them."""
    console = _console()
    tables = dict.fromkeys((row.variant, row.gradients) for row in results.rows)
    for variant, gradients in tables:
        console.print(_gpu_table(results, variant, gradients=gradients))
    for row in results.rows:
        name = f"{row.layer.name} {row.variant}"
        for who, why in row.refusals.items():
            console.print(f"{name}: {who} refuses: {why}", soft_wrap=True, markup=False)
        for who, mistake in row.mistakes.items():
            console.print(f"{name}: {who} {mistake}", soft_wrap=True, markup=False)
    if results.not_run:
        left = ", ".join(results.not_run)
        console.print(f"not run, for want of time: {left}", soft_wrap=True, markup=False)


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDTH)


def _gpu_table(results: GpuResults, variant: str, *, gradients: bool) -> Table:
    what = "gradients, " if gradients else ""
    table = _table(
        f"{what}{variant} on {results.facts['device']}",
        ["kernel", "tconv\nus", "layer\nus", "PyTorch\nus", "its best\nmode", "\nTFLOP/s",
         "\nGB/s", "of the\nfloor", "times\nfaster"],
    )  # fmt: skip
    rows = [row for row in results.rows if (row.variant, row.gradients) == (variant, gradients)]
    for row, is_last in _by_group(rows):
        ours, layer, theirs = (row.best(who) for who in (OURS, LAYER, GPU_PEERS))
        quickest, floor = layer or ours, row.floor(results.ceilings)
        g = row.layer.geometry
        table.add_row(
            row.layer.name,
            row.kernel,
            *(_scaled(best and best[0], 1e-6, ".1f") for best in (ours, layer, theirs)),
            theirs[1] if theirs else "-",
            _scaled(quickest and g.flops / quickest[0], 1e12, ".1f"),
            _scaled(quickest and g.nbytes(row.itemsize) / quickest[0], 1e9, ".0f"),
            "-" if quickest is None or floor is None else f"{floor / quickest[0]:.0%}",
            _scaled(row.ratio_to_best_peer(), 1, ".2f"),
            end_section=is_last,
        )
    mean = _scaled(results.mean(variant, gradients=gradients), 1, ".2f")
    table.add_row("geometric mean", *[""] * 8, mean, style="bold")
    return table


def _main_table(results: Results, plan: Plan) -> Table:
    table = _table(
        f"{plan.dtype.name}, {plan.threads} threads, {cpu_model()}",
        ["tconv\nms", "\nGFLOP/s", "\nGB/s", f"{PYTORCH}\nms", f"{ONNX_RUNTIME}\nms",
         "time over\nbetter peer", f"time over\n{PYTORCH}", "extra\nMiB"],
    )  # fmt: skip
    for row, is_last in _by_group(results.rows):
        table.add_row(
            row.layer.name,
            _milliseconds(row.time(TCONV)),
            _scaled(row.flops_per_second, 1e9, ".1f"),
            _scaled(row.bytes_per_second, 1e9, ".2f"),
            _milliseconds(row.time(PYTORCH)),
            _milliseconds(row.time(ONNX_RUNTIME)),
            _scaled(row.ratio(*PEERS), 1, ".2f"),
            _scaled(row.ratio(PYTORCH), 1, ".2f"),
            _scaled(row.extra_bytes, 2**20, ".1f"),
            end_section=is_last,
        )
    summary = results.summary()
    table.add_row(
        "geometric mean, largest memory",
        *[""] * 5,
        _scaled(summary["ratio_to_better_peer"], 1, ".2f"),
        _scaled(summary["ratio_to_pytorch"], 1, ".2f"),
        _scaled(summary["largest_extra_bytes"], 2**20, ".1f"),
        style="bold",
    )
    return table


def _gradient_table(results: Results, plan: Plan) -> Table:
    table = _table(
        f"gradients of x, weight and bias, {plan.dtype.name}, {plan.threads} threads",
        ["tconv\nms", f"{PYTORCH}\nms", f"time over\n{PYTORCH}", f"with forward,\nover {PYTORCH}"],
    )
    both = [ratio for _, ratio in results.training()]
    for (row, is_last), ratio in zip(_by_group(results.gradient_rows), both, strict=True):
        table.add_row(
            row.layer.name,
            _milliseconds(row.time(TCONV)),
            _milliseconds(row.time(PYTORCH)),
            _scaled(row.ratio(PYTORCH), 1, ".2f"),
            _scaled(ratio, 1, ".2f"),
            end_section=is_last,
        )
    summary = results.summary()
    table.add_row(
        "geometric mean",
        "",
        "",
        _scaled(summary["gradients_ratio_to_pytorch"], 1, ".2f"),
        _scaled(summary["training_ratio_to_pytorch"], 1, ".2f"),
        style="bold",
    )
    return table


def _reference_table(results: Results) -> Table:
    table = _table(
        "against zero insertion, each layer cut down to what it does within seconds",
        ["batch", "input", "tconv\nms", f"{REFERENCE}\nms", "times\nfaster"],
    )
    for row, is_last in _by_group(results.reference_rows):
        table.add_row(
            row.layer.name,
            str(row.layer.batch),
            " x ".join(map(str, row.layer.in_size)),
            _milliseconds(row.time(TCONV)),
            _milliseconds(row.time(REFERENCE)),
            _scaled(_inverse(row.ratio(REFERENCE)), 1, ".1f"),
            end_section=is_last,
        )
    faster = results.summary()["times_faster_than_reference_2d"]
    table.add_row("geometric mean of 2-D rows", *[""] * 4, _scaled(faster, 1, ".1f"), style="bold")
    return table


def remarks(results: Results, plan: Plan) -> list[str]:
    """Return a line for everything that the tables leave unsaid."""
    lines = list(results.notes)
    for row in (*results.rows, *results.gradient_rows, *results.reference_rows):
        name = row.layer.name
        lines += [f"{name}: {who} refuses: {why}" for who, why in row.refusals.items()]
        lines += [f"{name}: {who} {mistake}" for who, mistake in row.mistakes.items()]
    cut_short = {
        row.layer.name: len(taken)
        for row in results.rows
        for taken in row.seconds.values()
        if len(taken) < plan.rounds
    }
    if cut_short:
        rounds = ", ".join(f"{name} {taken}" for name, taken in cut_short.items())
        lines.append(f"fewer than {plan.rounds} rounds, for want of time: {rounds}")
    if results.not_run:
        lines.append(f"not run, for want of time: {', '.join(results.not_run)}")
    return lines


def write_json(file: TextIO, results: Results, plan: Plan) -> None:
    """Write everything that is known about a run, each round's seconds included."""
    installed = [peer for peer in PEERS if not missing_packages(peer)]
    facts: dict[str, Any] = {
        "versions": {**versions(), **{peer: peer_version(peer) for peer in installed}},
        **circumstances(),
        "device": "CPU",
        "cpu": cpu_model(),
        "threads": plan.threads,
        "dtype": plan.dtype.name,
        "rounds": plan.rounds,
        **results.as_dict(),
    }
    json.dump(facts, file, indent=1)
    file.write("\n")


def circumstances() -> dict[str, Any]:
    """Return what is running, when and where."""
    return {
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
    }


def commit() -> str | None:
    """Return the commit that is running, with "-dirty" if files differ; None outside a checkout."""
    # A package installed inside somebody else's checkout is not tracked there.
    if _git("ls-files", "--error-unmatch", __file__) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", *arguments], cwd=PACKAGE, capture_output=True, text=True)
    except OSError:
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("\nlayer", no_wrap=False)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _by_group(rows: Sequence[AnyRow]) -> Iterable[tuple[AnyRow, bool]]:
    """Return each row with whether the next belongs to another group, or there is none."""
    following = [*(row.layer.group for row in rows[1:]), None]
    return [(row, row.layer.group != group) for row, group in zip(rows, following, strict=True)]


def _milliseconds(seconds: float | None) -> str:
    return _scaled(seconds, 1e-3, ".2f")


def _scaled(value: float | None, unit: float, digits: str) -> str:
    return "-" if value is None else f"{value / unit:{digits}}"


def _inverse(ratio: float | None) -> float | None:
    return None if ratio is None else 1 / ratio
