"""The drawing: a row a picture, from the photograph to the outlines of its segments."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from skimage.segmentation import mark_boundaries

from .. import CommandError
from .fcn8s import Segments
from .learned import COLOURS, Found
from .pictures import CELL

PANEL = 4.0
"""Width of a panel in inches."""

MOST_PIXELS = 1024
"""Along a side of a panel; more cannot be seen."""


def draw(segmented: Sequence[Segments], found: Sequence[Found], output: str) -> None:
    """Draw what FCN-8s' decoder and the learned one found into a file."""
    shapes = [s.mask.shape for s in segmented] + [f.classes.shape for f in found]
    heights = [PANEL * np.clip(height / width, 0.2, 3) + 0.3 for height, width in shapes]
    figure = Figure(figsize=(4 * PANEL, sum(heights) + 0.8), layout="constrained")
    rows = figure.subplots(len(shapes), 4, squeeze=False, height_ratios=heights)
    for axes, segments in zip(rows, segmented, strict=False):
        _draw_segments(axes, segments)
    for axes, result in zip(rows[len(segmented) :], found, strict=True):
        _draw_found(axes, result)
    figure.suptitle(
        "Decoders of three transposed convolutions, from coarse scores to every pixel",
        fontsize=17,
    )
    remarks = [
        "FCN-8s: the classes are clusters of colour and contrast in each picture, found without a "
        "trained network."
    ]
    if found:
        remarks.append(
            "Below it: kernels learned from what lies left of the line; the labels were made by "
            "classical recipes."
        )
    figure.supxlabel("\n".join(remarks), fontsize=11, color="dimgrey")
    with warnings.catch_warnings():
        # A file name may have letters that the font lacks.
        warnings.filterwarnings("ignore", "Glyph")
        try:
            figure.savefig(output, dpi=100)
        except OSError as error:
            raise CommandError(f"cannot write --output {output}: {error}") from error


def _draw_segments(axes: Sequence[Axes], segments: Segments) -> None:
    height, width = segments.mask.shape
    every = -(-max(height, width) // MOST_PIXELS)
    photograph = segments.picture.rgb[::every, ::every]
    mask = segments.mask[::every, ::every]
    colours = segments.palette
    extent = (0, width, height, 0)
    rows, columns = segments.coarse.shape

    _show(axes[0], photograph, extent, f"{segments.picture.name}, {height} x {width}")
    _show(
        axes[1],
        colours[segments.coarse],
        (0, columns * CELL, rows * CELL, 0),
        f"best class at 1/32, {rows} x {columns}",
    )
    axes[1].set(xlim=(0, width), ylim=(height, 0))
    count = len(np.unique(segments.mask))
    classes = "1 class" if count == 1 else f"{count} classes"
    _show(axes[2], colours[mask], extent, f"decoded, {height} x {width}, {classes}")
    outlined = mark_boundaries(photograph, mask, color=(1, 1, 1), mode="thick")
    _show(axes[3], outlined, extent, "outlines on the photograph")


def _draw_found(axes: Sequence[Axes], found: Found) -> None:
    labelled = found.labelled
    height, width = found.classes.shape
    extent = (0, width, height, 0)
    photograph = np.repeat(labelled.grey[..., None], 3, axis=2)

    _show(axes[0], photograph, extent, f"{labelled.name}, {height} x {width}")
    _show(axes[1], COLOURS[labelled.labels], extent, "labels: " + ", ".join(labelled.classes))
    title = f"learned decoder, IoU {found.iou:.3f} on the right"
    _show(axes[2], COLOURS[found.classes], extent, title)
    outlined = mark_boundaries(photograph, found.classes, color=COLOURS[1], mode="inner")
    _show(axes[3], outlined, extent, "outlines on the photograph")
    for panel in axes:
        panel.axvline(labelled.held_out, color="tab:red", linewidth=1.5)


def _show(
    axes: Axes, image: NDArray[np.floating], extent: tuple[int, int, int, int], title: str
) -> None:
    axes.imshow(image, extent=extent, interpolation="nearest")
    # A file name is no formula, whatever dollar signs it has.
    axes.set_title(title, fontsize=12, parse_math=False)
    axes.set_axis_off()
