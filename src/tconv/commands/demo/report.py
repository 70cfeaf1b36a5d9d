"""What the demo prints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ... import gpu
from ..._config import config
from .layer import Layer
from .learned import Found
from .pictures import Picture

WIDTH = 110
"""Columns where the output is no terminal."""


@dataclass(frozen=True)
class Batch:
    """What went through a decoder together, and its layers."""

    name: str
    layers: list[Layer]


def batch_name(pictures: Sequence[Picture]) -> str:
    """Return what a batch is called."""
    count = len(pictures)
    return pictures[0].name if count == 1 else f"{count} pictures, one batch"


def print_report(
    batches: Sequence[Batch], pictures: Sequence[Picture], found: Sequence[Found], output: str
) -> None:
    """Print the layers of every batch, whether they equal the reference, and what was drawn."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    console.print(_table(batches))
    for line in _remarks(batches, pictures, found, output):
        console.print(line, soft_wrap=True, markup=False)


def _table(batches: Sequence[Batch]) -> Table:
    facts = config()
    cpu = f"{facts['CPU']}, {facts['CPU threads']} threads"
    device = facts["GPU"] if gpu.is_available() else cpu
    table = Table(title=f"Decoders on {device}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("layer", max_width=24, no_wrap=True)
    for name in ("path", "input", "output"):
        table.add_column(name, no_wrap=True)
    table.add_column("ms", justify="right", no_wrap=True)
    table.add_column("reference")
    for batch in batches:
        table.add_row(Text(batch.name, style="bold"))
        for layer in batch.layers:
            table.add_row(
                layer.name,
                layer.path,
                _shape(layer.x_shape),
                _shape(layer.out_shape),
                f"{layer.milliseconds:.2f}",
                _verdict(layer),
                end_section=layer is batch.layers[-1],
            )
    return table


def _verdict(layer: Layer) -> str:
    if not layer.is_right:
        return "[red]DIFFERS[/red]"
    if not layer.is_exact:
        return "equal within rounding"
    return "equal" if layer.is_whole else "equal in the corners"


def _remarks(
    batches: Sequence[Batch], pictures: Sequence[Picture], found: Sequence[Found], output: str
) -> list[str]:
    wrong = sorted(
        {layer.name for batch in batches for layer in batch.layers if not layer.is_right}
    )
    why_not = gpu.why_not()
    return [
        "FCN-8s: the classes are clusters of colour and contrast in each picture, found without a "
        "trained network.",
        *(f"Learned: IoU {f.iou:.3f} in the held-out part of {f.labelled.name}." for f in found),
        *([] if why_not is None else [f"No GPU was used: {why_not}."]),
        *(f"{p.name} is shrunk to fit." for p in pictures if p.is_shrunk),
        *(f"{name} is not what tconv.reference computes: please report it." for name in wrong),
        f"{output} is written.",
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
