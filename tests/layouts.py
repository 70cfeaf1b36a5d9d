"""The memory orders that Hopper's copy engine can follow, for arrays of any number of channels."""

import numpy as np

VECTOR = 8


def channels_last(x, ndim, empty=np.empty):
    """Return an equal array with channels nearest, and a multiple of 16 bytes for each position.

    What lies between the positions is poison.
    """
    axis = x.ndim - ndim - 1
    return _lying(x, [*range(axis), *range(axis + 1, x.ndim), axis], empty)


def packed(weight, empty=np.empty):
    """Return an equal weight: output channels nearest, then input channels, then taps."""
    return _lying(weight, [*range(2, weight.ndim), 0, 1], empty)


def _lying(array, order, empty):
    shape = [array.shape[axis] for axis in order]
    room = empty((*shape[:-1], -(-shape[-1] // VECTOR) * VECTOR), array.dtype)
    room[...] = 77  # finite: sums that are not are computed anew
    view = room[..., : shape[-1]].transpose(np.argsort(order))
    view[...] = array
    return view
