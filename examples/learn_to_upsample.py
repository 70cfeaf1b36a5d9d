"""Learn to make photographs three times as large, better than fixed interpolation does.

Run it as ``python examples/learn_to_upsample.py``; it takes a minute or two.  A small network is
trained on photographs that were shrunk by averaging 3 x 3 pixels, to undo that.  What enlarges is
one layer of transposed convolutions with 9 x 9 kernels and a stride of 3: one kernel for the small
picture itself, which begins as bilinear interpolation, and one for each feature that three
convolutions find in it (as FSRCNN does: Dong, Loy and Tang, 2016).  Other photographs, which the
training never sees, then tell how good it is.  The exit status is 1 if bicubic interpolation wins.
"""

import argparse
import sys

import numpy as np
from arguments import parsed
from layers import Adam, Conv, TransposedConv, he_normal
from rich.progress import track
from skimage import data
from skimage.transform import resize

import tconv
from tconv.commands import whole

TIMES = 3
TRAINING = (
    "brick", "chelsea", "gravel", "hubble_deep_field", "immunohistochemistry", "retina", "rocket",
    "stereo_motorcycle",
)  # fmt: skip
HELD_OUT = {"astronaut": (60, 156), "camera": (96, 192), "coffee": (231, 321)}  # and crops to draw
CROP = 120
BATCH, PATCH = 16, 72  # patches a step, and pixels along a side of each
MARGIN = 6  # pixels repeated around a small picture, so that its border has neighbours


class Network:
    """Three convolutions that find features, and two transposed ones that enlarge and add up."""

    def __init__(self, rng, features):
        self.find = [
            Conv(he_normal(rng, features, 1, 5, 5), padding=2),
            Conv(he_normal(rng, features, features, 3, 3), padding=1),
            Conv(he_normal(rng, features, features, 3, 3), padding=1),
        ]
        linear = np.pad(tconv.init.bilinear(1, (5, 5)), ((0, 0), (0, 0), (2, 2), (2, 2)))
        details = rng.normal(0, 1e-3, (features, 1, 9, 9))
        self.direct = TransposedConv(linear, stride=TIMES, padding=3)
        self.detail = TransposedConv(details, stride=TIMES, padding=3)
        self.layers = [*self.find, self.direct, self.detail]

    def forward(self, x):
        """Enlarge a batch of planes (N, 1, H, W)."""
        features = x
        for layer in self.find:
            features = layer.forward(features)
        return self.direct.forward(x) + self.detail.forward(features)

    def backward(self, grad):
        """Keep the gradients of all weights; the small picture's own is of no use."""
        self.direct.backward(grad)
        grad = self.detail.backward(grad)
        for layer in reversed(self.find):
            grad = layer.backward(grad)

    def enlarge(self, small):
        """Enlarge whole pictures."""
        around = [(0, 0), (0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)]
        large = self.forward(np.pad(small, around, mode="edge"))
        inside = slice(TIMES * MARGIN, -TIMES * MARGIN)
        return large[..., inside, inside].clip(0, 1)


def photograph(name):
    """Return a photograph of scikit-image's, from 0 to 1: each colour is a plane of its own."""
    found = getattr(data, name)()
    image = np.atleast_3d(found[0] if isinstance(found, tuple) else found)  # the left of two
    height, width = (size // TIMES * TIMES for size in image.shape[:2])
    return np.float32(image[:height, :width].transpose(2, 0, 1)[:, None]) / 255


def shrink(planes):
    """Average squares of pixels."""
    count, _, height, width = planes.shape
    squares = planes.reshape(count, 1, height // TIMES, TIMES, width // TIMES, TIMES)
    return squares.mean(axis=(3, 5))


def interpolate(small, order):
    """Enlarge with scikit-image: nearest (0), bilinear (1) or bicubic (3)."""
    size = [TIMES * n for n in small.shape[2:]]
    return np.stack([[resize(x, size, order=order, mode="edge")] for (x,) in small]).clip(0, 1)


def patches(rng, photographs):
    """Return a batch of patches from anywhere, turned and mirrored at random."""
    batch = []
    for i in rng.integers(len(photographs), size=BATCH):
        plane = photographs[i][rng.integers(len(photographs[i])), 0]
        row, column = (rng.integers(size - PATCH + 1) for size in plane.shape)
        patch = np.rot90(plane[row : row + PATCH, column : column + PATCH], rng.integers(4))
        batch.append([patch[:, ::-1] if rng.integers(2) else patch])
    return np.stack(batch)


def train(network, rng, photographs, steps, rate=3e-3):
    """Train, and return the mean squared error of every step."""
    adam = Adam(network.layers, rate, steps)
    errors = []
    for _ in track(range(steps), "learning", transient=True, disable=not sys.stdout.isatty()):
        large = patches(rng, photographs)
        difference = network.forward(shrink(large)) - large
        network.backward(2 * difference / BATCH)
        adam.step()
        errors.append(float((difference**2).mean()))
    return errors


def psnr(picture, truth):
    """Return the peak signal-to-noise ratio in decibels, of values from 0 to 1."""
    return float(-10 * np.log10(np.mean((picture - truth) ** 2)))


def main(steps=2500, features=24, seed=0, picture="learn_to_upsample.png"):
    """Train, compare and draw; return the mean PSNR of each way on the held-out photographs."""
    rng = np.random.default_rng(seed)
    network = Network(rng, features)
    errors = train(network, rng, [photograph(name) for name in TRAINING], steps)

    ways = {
        "nearest": lambda small: interpolate(small, 0),
        "bilinear": lambda small: interpolate(small, 1),
        "bicubic": lambda small: interpolate(small, 3),
        "learned": network.enlarge,
    }
    print(f"{'PSNR in dB':12}", *(f"{way:>9}" for way in ways))
    scores, crops = {way: [] for way in ways}, []
    for name, (row, column) in HELD_OUT.items():
        truth = photograph(name)
        small = shrink(truth)
        large = {way: enlarge(small) for way, enlarge in ways.items()}
        for way in ways:
            scores[way].append(psnr(large[way], truth))
        print(f"{name:12}", *(f"{scores[way][-1]:9.2f}" for way in ways))
        view = (..., slice(row, row + CROP), slice(column, column + CROP))
        crops.append({way: image[view] for way, image in (large | {"original": truth}).items()})
    means = {way: float(np.mean(values)) for way, values in scores.items()}
    print(f"{'mean':12}", *(f"{mean:9.2f}" for mean in means.values()))
    print(f"The learned kernels are {means['learned'] - means['bicubic']:+.2f} dB from bicubic.")

    draw(picture, crops, scores, network, errors)
    print(f"{picture} is written.")
    return means


def draw(path, crops, scores, network, errors):
    """Draw crops of the held-out photographs, a row each, and what was learned below them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(17, 14.4), layout="constrained")
    *rows, last = figure.subplots(len(crops) + 1, 5)
    for number, (row, ways) in enumerate(zip(rows, crops, strict=True)):
        for axes, (way, image) in zip(row, ways.items(), strict=True):
            axes.imshow(image[:, 0].transpose(1, 2, 0), cmap="gray", interpolation="nearest")
            score = f", {scores[way][number]:.2f} dB" if way in scores else ""
            name = f"{way}: what is given" if way == "nearest" else way
            axes.set_title(name + score, fontsize=12)

    kernel = network.direct.weight[0, 0]
    phases = kernel.reshape(3, TIMES, 3, TIMES).transpose(1, 3, 0, 2)
    details = network.detail.weight[:, 0]
    draw_numbers(last[0], kernel, "the picture's learned kernel")
    draw_numbers(last[1], mosaic(phases.reshape(9, 3, 3), 3), "its 9 phases, of 3 x 3 taps each")
    draw_numbers(last[2], mosaic(details, 6), f"kernels of the {len(details)} features")
    means = [np.mean(values) for values in scores.values()]
    bars = last[3].bar(list(scores), means, color=["silver"] * 3 + ["seagreen"])
    last[3].bar_label(bars, fmt="%.2f")
    last[3].set(ylim=(min(means) - 1, max(means) + 0.5))
    last[3].set_title("mean PSNR of the held-out, dB", fontsize=12)
    window = min(50, len(errors))
    last[4].plot(1000 * np.convolve(errors, np.ones(window) / window, mode="valid"))
    last[4].yaxis.tick_right()
    last[4].set_title("1000 x mean squared error", fontsize=12)
    for axes in (*np.ravel(rows), *last[:3]):
        axes.set_xticks([])
    for axes in (*np.ravel(rows), *last[:4]):
        axes.set_yticks([])
    figure.suptitle("Three times as large: fixed interpolation and a learned one", fontsize=17)
    figure.savefig(path, dpi=100)


def draw_numbers(axes, array, title):
    """Draw numbers as colours: red above zero, blue below."""
    largest = np.nanmax(np.abs(array))
    axes.imshow(array, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    axes.set_title(title, fontsize=12)


def mosaic(tiles, columns):
    """Lay tiles side by side, with a gap between them."""
    tiles = np.pad(tiles, ((0, -len(tiles) % columns), (0, 1), (0, 1)), constant_values=np.nan)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    return np.vstack(rows)[:-1, :-1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=whole, default=2500, help="of Adam (default: %(default)s)")
    parser.add_argument("--features", type=whole, default=24, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--picture", default="learn_to_upsample.png", help="the drawing")
    means = main(**parsed(parser))
    sys.exit(0 if means["learned"] > means["bicubic"] else 1)
