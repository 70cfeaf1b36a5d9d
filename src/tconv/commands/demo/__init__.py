"""``python -m tconv demo``: segment photographs with decoders of transposed convolutions.

The decoder of FCN-8s is real: class scores at 1/32, 1/16 and 1/8 of a picture's resolution, fused
and upsampled by three transposed convolutions, and the best class of every pixel.  No network was
trained for it: the classes are clusters of colour and contrast (k-means), found in each picture by
itself.  Unless pictures are named, a small network follows whose kernels were learned: it finds
coins and writing in the parts of two photographs that its training did not see.
"""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec
from typing import Any

from .. import CommandError, check_drawing, num_threads

LIBRARIES = {"matplotlib": "matplotlib", "rich": "rich", "skimage": "scikit-image"}

MOST_PICTURES = 50
"""Each is a row of the drawing, which may be 65,535 pixels high."""

MOST_CLASSES = 64


def add_parser(subparsers: Any) -> None:
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "demo", help="segment photographs with transposed convolutions", description=__doc__
    )
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help="pictures of any size (default: samples)"
    )
    parser.add_argument(
        "--output", metavar="FILE", default="demo.png", help="the drawing (default: %(default)s)"
    )
    parser.add_argument(
        "--classes", metavar="N", type=int, default=8, help="clusters (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Segment, print and draw; 1 if a layer differs from the reference."""
    missing = [name for module, name in LIBRARIES.items() if find_spec(module) is None]
    if missing:
        raise CommandError(f"demo needs {' and '.join(missing)}; pip install 'tconv[demo]'")
    if not 2 <= options.classes <= MOST_CLASSES:
        raise CommandError(f"--classes {options.classes} must be between 2 and {MOST_CLASSES}")
    if len(options.images) > MOST_PICTURES:
        raise CommandError(
            f"{len(options.images)} pictures are too many for one drawing; give {MOST_PICTURES}"
        )
    _check_output(options.output, options.images)
    num_threads()  # or the error that says why it is not known
    from rich.console import Console
    from rich.progress import Progress

    from . import drawing, fcn8s, learned, pictures, report

    shown = [pictures.read(path) for path in options.images] or pictures.samples()
    batches = pictures.batches(shown)
    labelled = [] if options.images else learned.photographs()

    steps = len(batches) * fcn8s.STEPS + len(labelled) * learned.STEPS + 1
    segments: dict[int, fcn8s.Segments] = {}
    reports = []
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=steps)

        def step(description: str) -> None:
            progress.update(task, description=description, advance=1)

        for batch in batches:
            members = [shown[i] for i in batch]
            masks, layers = fcn8s.segment(members, options.classes, step)
            segments |= zip(batch, masks, strict=True)
            reports.append(report.Batch(report.batch_name(members), layers))
        found = []
        for photograph in labelled:
            result, layers = learned.segment(photograph, learned.weights(), step)
            found.append(result)
            reports.append(report.Batch(f"{photograph.name}, learned", layers))
        step("drawing")
        drawing.draw([segments[i] for i in range(len(shown))], found, options.output)

    report.print_report(reports, shown, found, options.output)
    return 0 if all(layer.is_right for batch in reports for layer in batch.layers) else 1


def _check_output(path: str, images: list[str]) -> None:
    check_drawing("--output", path)
    for image in images:
        if os.path.exists(path) and os.path.exists(image) and os.path.samefile(path, image):
            raise CommandError(f"--output {path} would overwrite a picture; choose another name")
