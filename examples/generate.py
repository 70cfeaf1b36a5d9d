"""The generator of a DCGAN, forward: a batch of images out of random numbers, layer by layer.

Run it as ``python examples/generate.py``.  Five transposed convolutions lead from 100 numbers to an
image of 64 x 64 (Radford, Metz and Chintala, 2015).  The weights are random too: nothing was
trained, so the images show nothing.  Each kernel is a random mix of the channels before it, spread
out bilinearly; that is why the images are soft clouds and not noise.
"""

import argparse
import time

import numpy as np
from arguments import parsed
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

import tconv
from tconv.commands import whole

if tconv.gpu.is_available():
    import cupy as xp
else:
    xp = np

LAYERS = (  # name, kernel size, stride and padding of each transposed convolution
    ("project", 4, 1, 0),
    ("8 x 8", 4, 2, 1),
    ("16 x 16", 4, 2, 1),
    ("32 x 32", 4, 2, 1),
    ("64 x 64", 4, 2, 1),
)
NUMBERS = 100  # that an image is made of


def main(images=64, width=64, seed=0, picture="generate.png"):
    """Generate, print the layers and draw; ``width`` is the paper's 64, or less to be quicker."""
    rng = np.random.default_rng(seed)
    channels = (NUMBERS, 8 * width, 4 * width, 2 * width, width, 3)
    x = xp.asarray(rng.normal(size=(images, NUMBERS, 1, 1)), np.float32)
    console = Console(highlight=False)
    table = start_table(images)

    layers = list(zip(LAYERS, channels, channels[1:], strict=False))
    bar = {"transient": True, "disable": not console.is_terminal}
    for (name, kernel_size, stride, padding), before, after in track(layers, "layers", **bar):
        geometry = {"stride": stride, "padding": padding}
        weight = xp.asarray(random_weight(rng, before, after, kernel_size, stride), np.float32)
        is_last = name == LAYERS[-1][0]
        activation = "tanh" if is_last else None  # fused; the others are normalised first
        kernel = tconv.gpu.plan(x.shape, weight.shape, **geometry, activation=activation)
        y, milliseconds = timed(x, weight, activation=activation, **geometry)
        table.add_row(
            name,
            path(y),
            kernel.choice.specialisation.kernel,
            shape(x),
            shape(y),
            f"{milliseconds:.1f}",
            f"{kernel.geometry.flops / milliseconds / 1e6:.1f}",
        )
        x = y if is_last else np.maximum(normalised(y), 0)

    console.print(table)
    result = x if xp is np else x.get()
    draw(picture, result)
    print(f"{picture} is written: {images} images of random weights, seed {seed}.")
    return result


def random_weight(rng, before, after, kernel_size, stride):
    """Return random kernels: the first layer's are noise, the others' a bilinearly spread mix."""
    if stride == 1:
        return rng.normal(0, before**-0.5, (before, after, kernel_size, kernel_size))
    mix = rng.normal(0, before**-0.5, (before, after, 1, 1))
    return mix * tconv.init.bilinear(1, (kernel_size, kernel_size))


def normalised(x):
    """Normalise each channel over the batch, as the paper does between its layers."""
    mean, deviation = (f(x, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    return (x - mean) / deviation


def timed(x, weight, **arguments):
    """Return a layer's output, and the milliseconds of the fastest of three calls."""
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        y = tconv.transposed_conv2d(x, weight, **arguments)
        if xp is not np:
            y.device.synchronize()
        seconds.append(time.perf_counter() - begin)
    return y, 1000 * min(seconds)


def start_table(images):
    """Return the table's head."""
    table = Table(title=f"A generator, {images} images", title_justify="left", box=box.SIMPLE_HEAD)
    on_gpu = "kernel" if tconv.gpu.is_available() else "GPU kernel"
    for name in ("layer", "path", on_gpu, "input", "output"):
        table.add_column(name, no_wrap=True)
    for name in ("ms", "GFLOP/s"):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def path(y):
    """Say where an array was computed."""
    return "CPU, NumPy" if xp is np else f"GPU {y.device.id}, CuPy"


def shape(array):
    """Return the shape of an image's array, as the table shows it."""
    return "x".join(map(str, array.shape[1:]))


def draw(path, images):
    """Draw a contact sheet, as square as the number of images allows."""
    from matplotlib.figure import Figure

    columns = int(np.ceil(np.sqrt(len(images))))
    figure = Figure(figsize=(columns, -(-len(images) // columns)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    for axes in figure.subplots(-(-len(images) // columns), columns, squeeze=False).flat:
        axes.set_axis_off()
    for axes, image in zip(figure.axes, images, strict=False):
        axes.imshow((image.transpose(1, 2, 0) + 1) / 2, interpolation="nearest")
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=whole, default=64, help="default: %(default)s")
    parser.add_argument("--width", type=whole, default=64, help="channels before the image")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--picture", default="generate.png", help="the contact sheet")
    main(**parsed(parser))
