"""A transposed convolution, step by step, on a 3 x 3 input.

Run it as ``python examples/zero_insertion.py``: it prints every step of the definition, gets the
same result in three other ways, shows what a common listing gets instead, and draws it all (with
Matplotlib).
"""

import argparse

import numpy as np
from arguments import parsed
from scipy.signal import convolve2d, correlate2d

import tconv

STRIDE, PADDING = 2, 1
X = np.array([[1, 2, 9], [3, 8, 4], [7, 5, 6]])
KERNEL = np.array([[1, 0, -1]] * 3)  # answers to vertical edges
SIZE = (3 - 1) * STRIDE + 3 - 2 * PADDING  # the output is 5 x 5
CORRELATED = "4. correlated, and the crop"


def by_definition(x, kernel):
    """Insert zeros, then correlate with the flipped kernel; return every step."""
    # 1. Make the canvas: room for the inputs at their distance, and a margin for the kernel.
    margin = kernel.shape[0] - 1
    inner = (x.shape[0] - 1) * STRIDE + 1
    canvas = np.zeros((inner + 2 * margin,) * 2, int)

    # 2. Insert zeros: lay the inputs STRIDE apart.
    canvas[margin : margin + inner : STRIDE, margin : margin + inner : STRIDE] = x

    # 3. Flip the kernel, in both directions.
    flipped = np.flip(kernel)

    # 4. Correlate: slide the flipped kernel over the canvas.  Padding crops what comes out.
    full = correlate2d(canvas, flipped, mode="valid")
    return canvas, flipped, full, full[PADDING:-PADDING, PADDING:-PADDING]


def by_scattering(x, kernel):
    """Let every input paint the whole kernel, times itself; where paintings overlap, add."""
    full = np.zeros((SIZE + 2 * PADDING,) * 2, int)
    for row, column in np.ndindex(x.shape):
        top, left = row * STRIDE, column * STRIDE
        full[top : top + 3, left : left + 3] += x[row, column] * kernel
    return full[PADDING:-PADDING, PADDING:-PADDING]


def convolution_matrix(kernel):
    """Return the matrix of the ordinary convolution from 5 x 5 to 3 x 3.

    Column by column: what the convolution makes of a picture with a single 1.
    """
    columns = []
    for unit in np.eye(SIZE * SIZE, dtype=int):
        picture = np.pad(unit.reshape(SIZE, SIZE), PADDING)
        columns.append(correlate2d(picture, kernel, mode="valid")[::STRIDE, ::STRIDE].ravel())
    return np.stack(columns, axis=1)


def by_listing(x, kernel):
    """Flip the kernel and convolve: it looks right, but a convolution flips once more."""
    canvas = np.zeros((SIZE, SIZE), int)
    canvas[::STRIDE, ::STRIDE] = x
    return convolve2d(canvas, np.flip(kernel), mode="same")


def by_tconv(x, kernel):
    """Call the library: one item, one channel in, one channel out."""
    return tconv.transposed_conv2d(x[None, None], kernel[None, None], stride=2, padding=1)[0, 0]


def main(picture="zero_insertion.png"):
    """Print, compare and draw."""
    canvas, flipped, full, result = by_definition(X, KERNEL)
    show("The input", X)
    show("The kernel", KERNEL)
    show(f"1. and 2. The canvas, with the inputs {STRIDE} apart", canvas)
    show("3. The kernel, flipped", flipped)
    show("4. The correlation of both", full)
    show(f"The result: padding={PADDING} crops a row and a column on every side", result)

    matrix = convolution_matrix(KERNEL)
    others = {
        "scattering, one input painted over many outputs": by_scattering(X, KERNEL),
        "the transposed matrix of the convolution": (matrix.T @ X.ravel()).reshape(SIZE, SIZE),
        "tconv.transposed_conv2d": by_tconv(X, KERNEL),
    }
    for name, other in others.items():
        if not np.array_equal(other, result):
            raise RuntimeError(f"{name} differs from the definition:\n{other}")
        print(f"The same by {name}.")

    wrong = by_listing(X, KERNEL)
    show("\nFlip, then scipy.signal.convolve2d, gets something else", wrong)
    show("It is wrong by", wrong - result)
    if not np.array_equal(wrong, by_tconv(X, np.flip(KERNEL))):
        raise RuntimeError("the listing no longer computes the mirrored kernel's result")
    print(
        "A convolution flips its kernel, which undoes the flip before it: this is the result of\n"
        "the mirrored kernel.  For an edge kernel, every edge has the wrong sign.\n"
    )

    one = np.zeros_like(X)
    one[1, 1] = X[1, 1]  # the 8
    draw(
        picture,
        {
            "the input": X,
            "1. 2. zeros inserted": canvas,
            "3. the kernel, flipped": flipped,
            CORRELATED: full,
            "the result": result,
            "the kernel": KERNEL,
            "scattering: what the 8 paints": by_scattering(one, KERNEL),
            "the transposed matrix": matrix.T,
            "tconv.transposed_conv2d": others["tconv.transposed_conv2d"],
            "flip, then convolve2d: WRONG": wrong,
        },
    )
    print(f"{picture} is written.")


def show(title, array):
    """Print an array under its title."""
    print(title, np.array2string(array, prefix="  ").join(["  ", "\n"]), sep="\n")


def draw(path, panels):
    """Draw the panels in two rows, every number on its colour: red above zero, blue below."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    figure = Figure(figsize=(17, 7.4), layout="constrained")
    for axes, (title, array) in zip(figure.subplots(2, 5).flat, panels.items(), strict=True):
        largest = np.abs(array).max()
        axes.imshow(array, cmap="RdBu_r", vmin=-1.5 * largest, vmax=1.5 * largest, aspect="auto")
        for (row, column), value in np.ndenumerate(array):
            colour, size = "black" if value else "silver", 17 - array.shape[0] // 2
            axes.text(column, row, value, ha="center", va="center", color=colour, fontsize=size)
        axes.set_title(title, fontsize=14, color="firebrick" if "WRONG" in title else "black")
        axes.set(xticks=[], yticks=[])
        if title == CORRELATED:
            axes.add_patch(Rectangle((0.5, 0.5), SIZE, SIZE, fill=False, linewidth=3))
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--picture", default="zero_insertion.png", help="the drawing")
    main(**parsed(parser))
