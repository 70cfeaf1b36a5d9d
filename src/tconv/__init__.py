"""Transposed convolution for NumPy and CuPy arrays.

`transposed_conv1d`, `transposed_conv2d` and `transposed_conv3d` compute where their arrays are;
`tconv.gpu` has the same verbs for the GPU, and `tconv.reference` has them as the textbook defines
them.  ``transposed_conv2d_backward`` and its like return their gradients, `conv2d` is the adjoint.
"""

from . import gpu, init, reference
from ._api import transposed_conv1d, transposed_conv2d, transposed_conv3d
from ._backward import (
    transposed_conv1d_backward,
    transposed_conv2d_backward,
    transposed_conv3d_backward,
)
from ._checkerboard import checkerboard
from ._config import show_config
from ._conv import conv1d, conv2d, conv3d
from ._version import __version__
from .layer import TransposedConv1d, TransposedConv2d, TransposedConv3d

__all__ = [
    "TransposedConv1d",
    "TransposedConv2d",
    "TransposedConv3d",
    "__version__",
    "checkerboard",
    "conv1d",
    "conv2d",
    "conv3d",
    "gpu",
    "init",
    "reference",
    "show_config",
    "transposed_conv1d",
    "transposed_conv1d_backward",
    "transposed_conv2d",
    "transposed_conv2d_backward",
    "transposed_conv3d",
    "transposed_conv3d_backward",
]
