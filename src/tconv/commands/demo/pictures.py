"""The pictures: read from files of any kind and size, and put into batches."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from .. import CommandError

SAMPLES = ("astronaut", "coffee")
"""Photographs inside scikit-image's wheel."""

LONGEST_SIDE = 4096
"""Pixels; larger pictures are shrunk, and no batch holds more than the square of it."""

CELL = 32
"""Pixels along a side of the coarsest cell: sizes are padded to a multiple of it."""


@dataclass(frozen=True)
class Picture:
    """A picture as its decoder sees it."""

    name: str
    rgb: NDArray[np.float32]
    """(height, width, 3), from 0 to 1."""
    is_shrunk: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]

    @property
    def padded_size(self) -> tuple[int, int]:
        """Height and width rounded up to whole cells."""
        height, width = (-(-n // CELL) * CELL for n in self.size)
        return height, width

    def padded(self) -> NDArray[np.float32]:
        """Return the picture with its last rows and columns mirrored up to ``padded_size``."""
        margin = [(0, whole - n) for whole, n in zip(self.padded_size, self.size, strict=True)]
        return np.pad(self.rgb, (*margin, (0, 0)), mode="symmetric")


def samples() -> list[Picture]:
    """Return the photographs that are shown when none is named."""
    from skimage import data

    return [Picture(name, _as_rgb(getattr(data, name)())) for name in SAMPLES]


def read(path: str) -> Picture:
    """Return the picture in a file, upright and on white where it is transparent."""
    if os.path.isdir(path):
        raise CommandError(f"{path} is a folder; name the pictures in it")
    if not os.path.isfile(path):
        raise CommandError(f"{path} is not a file; check its name")
    if os.path.getsize(path) == 0:
        raise CommandError(f"{path} is empty; give a picture")
    try:
        with warnings.catch_warnings():
            # Of damage that Pillow has repaired, and of sizes that we shrink.
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                image = _on_white(ImageOps.exif_transpose(file))
    # Pillow's decoders raise whatever they stumble over in a damaged file.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise CommandError(
            f"{path} cannot be read as a picture ({reason}); convert it to PNG or JPEG"
        ) from error
    is_shrunk = max(image.size) > LONGEST_SIDE
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    name = os.fsencode(Path(path).name).decode(errors="replace")
    return Picture(name, _as_rgb(np.asarray(image)), is_shrunk)


def batches(pictures: Sequence[Picture]) -> list[list[int]]:
    """Return the positions of pictures that one call decodes: those of one padded size."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for i, picture in enumerate(pictures):
        by_size.setdefault(picture.padded_size, []).append(i)
    return [
        members[first : first + most]
        for (height, width), members in by_size.items()
        for most in [LONGEST_SIDE**2 // (height * width)]
        for first in range(0, len(members), most)
    ]


def _as_rgb(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    rgb: NDArray[np.float32] = np.divide(levels, 255, dtype=np.float32)
    return rgb


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_stretched(np.asarray(image)))
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _stretched(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return deep greys in 8 bits, from their darkest to their lightest: few use all 16 bits."""
    values = np.nan_to_num(grey.astype(np.float64), posinf=0, neginf=0)
    values -= values.min()
    return np.rint(values * (255 / (values.max() or 1))).astype(np.uint8)
