"""Transposed convolution for NumPy and CuPy arrays.

`transposed_conv1d`, `transposed_conv2d` and `transposed_conv3d` compute where their arrays are;
`tconv.gpu` has the same verbs for the GPU, and `tconv.reference` has them as the textbook defines
them.
"""

from . import gpu, reference
from ._api import transposed_conv1d, transposed_conv2d, transposed_conv3d
from ._config import show_config
from ._version import __version__

__all__ = [
    "__version__",
    "gpu",
    "reference",
    "show_config",
    "transposed_conv1d",
    "transposed_conv2d",
    "transposed_conv3d",
]
