"""A learned decoder: the second part of the demo, and what ``examples/segment.py`` trains.

The network is small.  Convolutions with a stride bring a photograph to 1/8 of its resolution, and
three transposed convolutions bring class scores back to every pixel.  ``weights.npz`` holds what it
learned from the left two thirds of two photographs; the right third was held out.

Nobody drew the labels.  Each photograph allows a classical recipe that its class does not share: a
watershed between certain coin and certain table, and the darkness of ink beside its surroundings.
The network has to find both, in any photograph, without being told which recipe applies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import data
from skimage.filters import sobel, threshold_sauvola
from skimage.morphology import disk, opening
from skimage.segmentation import watershed

from ... import conv2d, reference, transposed_conv2d
from .layer import Array, Layer, path, timed, to_device, to_host

CLASSES = ("background", "coin", "writing")

COLOURS = np.array([(0.15, 0.16, 0.22), (0.95, 0.72, 0.20), (0.25, 0.75, 0.85)])
"""Of the classes."""

ENCODER = (("conv1", 4, 2), ("conv2", 4, 2), ("conv3", 4, 2), ("conv4", 3, 1))
DECODER = (("up1", 4, 2), ("up2", 4, 2), ("up3", 4, 2))
"""Name, kernel size and stride of the layers; the padding keeps size over stride whole."""

CELL = 8
"""Pixels along a side of the coarsest cell: photographs are cropped to a multiple of it."""

STEPS = 2 * len(DECODER)
"""How often `segment` reports a step."""

Weights = dict[str, NDArray[np.float32]]
"""``<layer>.weight`` and ``<layer>.bias`` for each layer."""


@dataclass(frozen=True)
class Labelled:
    """A photograph in grey, from 0 to 1, and the class of every pixel."""

    name: str
    grey: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def classes(self) -> list[str]:
        """The names of the classes that the labels have."""
        return [CLASSES[number] for number in np.unique(self.labels)]

    @property
    def held_out(self) -> int:
        """The first column that is not trained on."""
        return int(self.labels.shape[1]) * 2 // 3


@dataclass(frozen=True)
class Found:
    """What the network made of a photograph."""

    labelled: Labelled
    classes: NDArray[np.int64]

    @property
    def iou(self) -> float:
        """Intersection over union in the held-out part."""
        columns = slice(self.labelled.held_out, None)
        return iou(self.classes[:, columns], self.labelled.labels[:, columns])


def photographs() -> list[Labelled]:
    """Return the photographs inside scikit-image's wheel that have labels."""
    coins, page = data.coins(), data.page()
    return [_labelled("coins", coins, coin(coins), 1), _labelled("page", page, ink(page), 2)]


def coin(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels belong to coins: a watershed of the edges, and no holes or specks."""
    certain = np.where(grey > 150, 2, np.where(grey < 30, 1, 0))
    flooded = watershed(sobel(grey), certain) == 2
    coins: NDArray[np.bool_] = opening(ndimage.binary_fill_holes(flooded), disk(3))
    return coins


def ink(grey: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels are darker than their surroundings (Sauvola's threshold)."""
    darker: NDArray[np.bool_] = grey < threshold_sauvola(grey, 25)
    return darker


def _labelled(
    name: str, grey: NDArray[np.uint8], found: NDArray[np.bool_], number: int
) -> Labelled:
    rows, columns = (size // CELL * CELL for size in grey.shape)
    whole = slice(rows), slice(columns)
    levels: NDArray[np.float32] = np.divide(grey[whole], 255, dtype=np.float32)
    return Labelled(name, levels, np.where(found[whole], number, 0))


def iou(found: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Return the mean over the classes of the labels: pixels of both over those of either."""
    ratios = []
    for number in np.unique(labels):
        in_found, in_labels = found == number, labels == number
        ratios.append((in_found & in_labels).sum() / (in_found | in_labels).sum())
    return float(np.mean(ratios))


def weights() -> Weights:
    """Return what was learned; it is stored in half precision."""
    with (
        files(__package__).joinpath("weights.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


def segment(
    labelled: Labelled, weights: Weights, step: Callable[[str], None]
) -> tuple[Found, list[Layer]]:
    """Classify every pixel, and check each transposed convolution against the reference."""
    x: Array = centred(labelled.grey)[None, None]
    for name, kernel_size, stride in ENCODER:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        x = conv2d(x, weight, bias, stride=stride, padding=(kernel_size - 1) // 2)
        x = x.clip(0)
    # Only the decoder runs on a GPU: a convolution has no kernel there yet.
    on_device = to_device()
    x = on_device(x)
    layers = []
    for name, kernel_size, stride in DECODER:
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        window: dict[str, Any] = {
            "stride": stride,
            "padding": (kernel_size - stride) // 2,
        }
        step(name)
        y, milliseconds = timed(
            partial(transposed_conv2d, x, on_device(weight), on_device(bias), **window)
        )
        step(f"{name}: checking")
        is_right = agrees(to_host(y), to_host(x), weight, bias, stride)
        by = path(x, weight, **window)
        layers.append(
            Layer(name, x.shape, y.shape, by, milliseconds, is_right, is_whole=True, is_exact=False)
        )
        x = y.clip(0)
    return Found(labelled, to_host(y[0].argmax(axis=0))), layers


def centred(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the network sees: mid-grey is zero."""
    return 2 * grey - 1


def agrees(
    y: NDArray[np.float32],
    x: NDArray[np.float32],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    stride: int,
) -> bool:
    """Return whether the outputs are as near to the exact ones as rounding to float32 allows.

    With u the unit roundoff and t the terms of a sum, an output may be off by ``(t + 2) * u`` times
    the same layer on absolute values.  The exact result is the reference's in float64.  The output
    channels are added up with random factors, and so are their kernels: one map from the reference
    checks them all, and the bounds add up too.
    """
    factors = np.random.default_rng(0).permutation(len(bias)) + 1.0
    padding = (weight.shape[-1] - stride) // 2
    exact = reference.transposed_conv2d(
        x.astype(np.float64),
        np.einsum("m,cmhw->chw", factors, weight)[:, None],
        (factors @ bias)[None],
        stride=stride,
        padding=padding,
    )
    size = reference.transposed_conv2d(
        np.abs(x, dtype=np.float64),
        np.einsum("m,cmhw->chw", factors, np.abs(weight))[:, None],
        (factors @ np.abs(bias))[None],
        stride=stride,
        padding=padding,
    )
    terms = len(weight) * np.prod([-(-taps // stride) for taps in weight.shape[2:]])
    bound = (terms + 2) * 2.0**-24 * size
    difference = np.einsum("m,nmhw->nhw", factors, y)[:, None] - exact
    # A result that is not a number is not within the bound.
    return bool((np.abs(difference) <= bound).all())
