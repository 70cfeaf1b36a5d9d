"""A transposed convolution is no inverse: it restores the size of a picture, not its values.

Run it as ``python examples/not_an_inverse.py``.  It sends a photograph through a convolution with a
stride and back through the transposed convolution with the same kernel, and draws what returns.
Then it builds the matrices of both: one is exactly the transpose of the other, hence the name, and
their product is not the identity.
"""

import argparse
import sys

import numpy as np
from arguments import parsed
from rich.progress import track
from skimage import data

import tconv

GEOMETRY = {"stride": 2, "padding": 1}
KERNEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])  # answers to vertical edges
SIZE = 7  # of the small picture whose matrices are drawn
WHITE = 255  # the brightest number in a photograph


def there(picture):
    """Convolve: from H x W to about half of it."""
    return tconv.conv2d(picture[None], KERNEL[None, None], **GEOMETRY)[0]


def back(small, size):
    """Convolve transposed, with the same kernel: to the size that the picture had."""
    return tconv.transposed_conv2d(small[None], KERNEL[None, None], **GEOMETRY, output_size=size)[0]


def matrix(function, size, description):
    """Return the matrix of a linear function, column by column: what it makes of a single 1."""
    units = np.eye(size * size, dtype=int).reshape(-1, size, size)
    bar = {"transient": True, "disable": not sys.stdout.isatty()}
    columns = [function(unit).ravel() for unit in track(units, description, **bar)]
    return np.stack(columns, axis=1)


def main(photograph=None, picture="not_an_inverse.png"):
    """Print, compare and draw; the photograph holds whole numbers."""
    x = np.asarray(data.camera() if photograph is None else photograph, int)
    small = there(x)
    y = back(small, x.shape)
    print(f"photograph   {x.shape}, from {x.min()} to {x.max()}")
    print(f"convolved    {small.shape}, from {small.min()} to {small.max()}")
    print(f"and back     {y.shape}, from {y.min()} to {y.max()}")

    # An inverse would give the photograph back, or at least a multiple of it.
    likeness = np.corrcoef(x.ravel(), y.ravel())[0, 1]
    print(f"The size is restored.  The values are not: their correlation is {likeness:.2f}.\n")

    # On a small picture, the matrices can be written down.
    in_size = there(np.zeros((SIZE, SIZE), int)).shape[0]
    conv = matrix(there, SIZE, "the convolution's matrix")
    transposed = matrix(lambda x: back(x, (SIZE, SIZE)), in_size, "the transposed one's")
    if not np.array_equal(transposed, conv.T):
        raise RuntimeError("the matrix is not the transpose of the convolution's")
    print(f"matrix of the convolution             {conv.shape}")
    print(f"matrix of the transposed convolution  {transposed.shape}: exactly the transpose")

    # No matrix could be an inverse: the convolution has lost most of the numbers.
    both = transposed @ conv
    rank = np.linalg.matrix_rank(conv)
    print(f"The product of both has rank {rank}; the identity has {SIZE * SIZE}.")

    draw(picture, x, small, y, conv, transposed, both)
    print(f"{picture} is written.")
    return conv, transposed


def draw(path, x, small, y, conv, transposed, both):
    """Draw the photograph's way in the first row, the matrices in the second."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 9.6), layout="constrained")
    rows = figure.subplots(2, 4)
    for axes, title, image, black, white in [
        (rows[0, 0], "a photograph", x, 0, WHITE),
        (rows[0, 1], "convolved with stride 2", small, -WHITE, WHITE),
        (rows[0, 2], "and transposed: the size is back", y, -2 * WHITE, 2 * WHITE),
        (rows[0, 3], "what an inverse would give", x, 0, WHITE),
    ]:
        axes.imshow(image, cmap="gray", vmin=black, vmax=white)
        axes.set_title(f"{title}, {shape(image)}", fontsize=13)
    for axes, title, array in [
        (rows[1, 0], "the convolution's matrix", conv),
        (rows[1, 1], "the transposed convolution's", transposed),
        (rows[1, 2], "there and back: their product ...", both),
        (rows[1, 3], "... is not the identity", np.eye(len(both), dtype=int)),
    ]:
        largest = np.abs(array).max()
        axes.imshow(array, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
        axes.set_title(f"{title}, {shape(array)}", fontsize=13)
    for axes in rows.flat:
        axes.set(xticks=[], yticks=[])
    figure.suptitle(
        "A transposed convolution restores the size of what was convolved, not its values",
        fontsize=17,
    )
    figure.savefig(path, dpi=100)


def shape(array):
    """Return the size of a matrix in words."""
    return " x ".join(map(str, array.shape))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", default="not_an_inverse.png", help="the drawing")
    main(**parsed(parser))
