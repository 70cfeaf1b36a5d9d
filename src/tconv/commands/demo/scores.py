"""Class scores from simple features, in the place of a trained network.

The classes are clusters of a picture's own cells of 8 x 8 pixels, by colour and contrast.  A cell's
score for a class falls with the distance of their features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from skimage.color import lab2rgb, rgb2lab

CELLS = (32, 16, 8)
"""Pixels along a side of a cell of score32, score16 and score8."""

CHROMA, CONTRAST = 1.5, 0.7
"""Weights of colour and contrast beside lightness."""

SOFTNESS = 0.01
"""The squared distance of features that costs one point of score."""

LEAST, STEPS = -8, 4
"""Scores are whole quarters from -8 to 0."""

Scores = tuple[NDArray[np.float32], ...]
"""(classes, rows, columns) for every size of cells."""


def scores(rgb: NDArray[np.float32], classes: int) -> tuple[Scores, NDArray[np.float64]]:
    """Return how well each class fits each cell, from coarse to fine, and the classes' colours."""
    levels = [_features(rgb, cell) for cell in CELLS]
    centres = _clusters(levels[-1].reshape(-1, levels[-1].shape[-1]), classes)
    palette: NDArray[np.float64] = lab2rgb(centres[:, :3] / (1, CHROMA, CHROMA) * 100)
    return tuple(_fit(features, centres) for features in levels), palette


def _features(rgb: NDArray[np.float32], cell: int) -> NDArray[np.float64]:
    """Return colour and contrast of every cell: (rows, columns, 4)."""
    lightness = rgb.mean(axis=-1, keepdims=True)
    colour, square = _means(rgb, cell), _means(lightness**2, cell)
    variance = square - colour.mean(axis=-1, keepdims=True) ** 2
    lab = rgb2lab(colour) / 100 * (1, CHROMA, CHROMA)
    return np.concatenate([lab, CONTRAST * np.sqrt(variance.clip(0))], axis=-1)


def _means(planes: NDArray[np.float32], cell: int) -> NDArray[np.float64]:
    height, width, count = planes.shape
    cells = planes.reshape(height // cell, cell, width // cell, cell, count)
    means: NDArray[np.float64] = cells.mean(axis=(1, 3), dtype=np.float64)
    return means


def _clusters(features: NDArray[np.float64], classes: int) -> NDArray[np.float64]:
    distinct = len(np.unique(features.round(4), axis=0))
    centres, _ = kmeans2(features, min(classes, distinct), minit="++", seed=0, iter=30)
    # A class that is there twice never wins: the arg-max takes the first.
    return np.resize(centres, (classes, features.shape[1]))


def _fit(features: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float32]:
    distance = ((features - centres[:, None, None]) ** 2).sum(axis=-1)
    score = ((distance.min(axis=0) - distance) / SOFTNESS).clip(LEAST)
    quarters: NDArray[np.float32] = np.divide(np.rint(score * STEPS), STEPS, dtype=np.float32)
    return quarters
