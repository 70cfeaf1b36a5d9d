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
from .pictures import CELL

PANEL = 4.0
"""Width of a panel in inches."""

MOST_PIXELS = 1024
"""Along a side of a panel; more cannot be seen."""


def draw(found: Sequence[Segments], output: str) -> None:
    """Draw what was found into a file."""
    heights = [PANEL * np.clip(s.mask.shape[0] / s.mask.shape[1], 0.2, 3) + 0.3 for s in found]
    figure = Figure(figsize=(4 * PANEL, sum(heights) + 0.8), layout="constrained")
    rows = figure.subplots(len(found), 4, squeeze=False, height_ratios=heights)
    for axes, segments in zip(rows, found, strict=True):
        _draw_row(axes, segments)
    figure.suptitle(
        "FCN-8s' decoder: three transposed convolutions, from coarse scores to every pixel",
        fontsize=17,
    )
    figure.supxlabel(
        "The classes are clusters of colour and contrast in each picture, found without a trained "
        "network.",
        fontsize=11,
        color="dimgrey",
    )
    with warnings.catch_warnings():
        # A file name may have letters that the font lacks.
        warnings.filterwarnings("ignore", "Glyph")
        try:
            figure.savefig(output, dpi=100)
        except OSError as error:
            raise CommandError(f"cannot write --output {output}: {error}") from error


def _draw_row(axes: Sequence[Axes], segments: Segments) -> None:
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


def _show(
    axes: Axes, image: NDArray[np.floating], extent: tuple[int, int, int, int], title: str
) -> None:
    axes.imshow(image, extent=extent, interpolation="nearest")
    # A file name is no formula, whatever dollar signs it has.
    axes.set_title(title, fontsize=12, parse_math=False)
    axes.set_axis_off()
