"""Learn to find coins and writing in photographs, with transposed convolutions as the decoder.

Run it as ``python examples/segment.py``; it takes a minute or two.  The network is the one that
``make demo`` shows: four convolutions bring a photograph to 1/8 of its resolution, three transposed
convolutions bring class scores back to every pixel.  It is trained on the left two thirds of two
photographs and measured on the right third, by intersection over union (IoU).

Beside it, the same network is trained with fixed kernels: bilinear upsampling, where only the mix
of channels is learned.  What it lacks is the place of things between coarse cells.

``--save`` stores the learned weights, in half precision; those of the demo were made by
``python examples/segment.py --save src/tconv/commands/demo/weights.npz``.  The labels come from
classical recipes, not from people: see ``tconv.commands.demo.learned``.
"""

import argparse
import sys

import numpy as np
from arguments import parsed
from layers import Adam, Conv, TransposedConv, he_normal
from rich.progress import track

import tconv
from tconv.commands import whole
from tconv.commands.demo.learned import (
    CLASSES,
    COLOURS,
    DECODER,
    ENCODER,
    Found,
    centred,
    photographs,
)

DOWN = (1, 16, 32, 48, 48)  # channels of the photograph, and after each convolution
UP = (48, 32, 16, len(CLASSES))  # and after each transposed convolution
BATCH, PATCH = 8, 96  # patches a step, and pixels along a side of each


class BilinearConv(TransposedConv):
    """A transposed convolution whose kernels are bilinear, times a learned mix of the channels."""

    def __init__(self, weight, **options):
        super().__init__(weight, **options)
        self.mix = self.weight.sum(axis=(2, 3), keepdims=True) / 2
        self.kernel = tconv.init.bilinear(1, weight.shape[2:])

    def forward(self, x):
        """Return the layer's output."""
        self.weight = self.mix * self.kernel
        return super().forward(x)

    def backward(self, grad):
        """Keep the gradients of the mix and the bias, and return that of the input."""
        grad_x = super().backward(grad)
        self.grads[0] = (self.grads[0] * self.kernel).sum(axis=(2, 3), keepdims=True)
        return grad_x

    def parameters(self):
        """Return the arrays that are learned."""
        return [self.mix, self.bias]


class Network:
    """An encoder of convolutions and a decoder of transposed ones, of the given kind."""

    def __init__(self, rng, decoder):
        encoder = [
            Conv(he_normal(rng, after, before, size, size), stride, padding=1)
            for (_, size, stride), before, after in zip(ENCODER, DOWN, DOWN[1:], strict=False)
        ]
        # Each output of a stride of 2 takes a quarter of the 16 taps.
        self.layers = encoder + [
            decoder(
                rng.normal(0, np.sqrt(2 / (4 * before)), (before, after, size, size)),
                stride=stride,
                padding=1,
                relu=after != len(CLASSES),
            )
            for (_, size, stride), before, after in zip(DECODER, UP, UP[1:], strict=False)
        ]

    def forward(self, x):
        """Return the scores of every class (N, classes, H, W)."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, grad):
        """Keep the gradients of all weights."""
        for layer in reversed(self.layers):
            grad = layer.backward(grad)

    def segment(self, photograph):
        """Return the best class of every pixel."""
        x = centred(photograph.grey)[None, None]
        return Found(photograph, self.forward(x)[0].argmax(axis=0))


def patches(rng, shown):
    """Return patches of what is learned from, turned and lighter or darker, and their labels."""
    greys, labels = [], []
    for n in range(BATCH):
        photograph = shown[n % len(shown)]
        limits = photograph.grey.shape[0] - PATCH, photograph.held_out - PATCH
        row, column = (rng.integers(limit + 1) for limit in limits)
        window, turns = np.s_[row : row + PATCH, column : column + PATCH], rng.integers(4)
        light, contrast = rng.uniform(-0.2, 0.2), rng.uniform(0.7, 1.3)
        grey = centred(photograph.grey[window]) * contrast + light
        greys.append(np.rot90(grey, turns)[None])
        labels.append(np.rot90(photograph.labels[window], turns))
    return np.stack(greys).astype(np.float32), np.stack(labels)


def cross_entropy(scores, labels):
    """Return the mean over the pixels of -log(probability of the right class), and its gradient."""
    scores = scores - scores.max(axis=1, keepdims=True)
    log_p = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    right = labels[:, None] == np.arange(len(CLASSES))[:, None, None]
    return float(-log_p[right].mean()), (np.exp(log_p) - right) / np.float32(labels.size)


def train(network, rng, shown, steps, name, rate=4e-3):
    """Train, and return the loss of every step."""
    adam = Adam(network.layers, rate, steps)
    losses = []
    bar = {"transient": True, "disable": not sys.stdout.isatty()}
    for _ in track(range(steps), f"learning, {name}", **bar):
        x, labels = patches(rng, shown)
        loss, grad = cross_entropy(network.forward(x), labels)
        network.backward(grad)
        adam.step()
        losses.append(loss)
    return losses


def main(steps=800, seed=0, save=None, picture="segment.png"):
    """Train both networks, compare and draw; return what each found, and its losses."""
    shown = photographs()
    found, losses = {}, {}
    for name, decoder in {"bilinear": BilinearConv, "learned": TransposedConv}.items():
        rng = np.random.default_rng(seed)  # both begin alike and see the same patches
        network = Network(rng, decoder)
        losses[name] = train(network, rng, shown, steps, name)
        found[name] = [network.segment(photograph) for photograph in shown]

    print(f"{'held-out IoU':14}", *(f"{name:>9}" for name in found))
    for n, photograph in enumerate(shown):
        print(f"{photograph.name:14}", *(f"{results[n].iou:9.3f}" for results in found.values()))
    if save is not None:
        store(save, network)
        print(f"{save} is written.")
    draw(picture, shown, found, losses)
    print(f"{picture} is written.")
    return found, losses


def store(path, network):
    """Store the weights of every layer in half precision, under the names of the demo."""
    arrays = {}
    for (name, *_), layer in zip(ENCODER + DECODER, network.layers, strict=True):
        arrays[f"{name}.weight"] = layer.weight.astype(np.float16)
        arrays[f"{name}.bias"] = layer.bias.astype(np.float16)
    np.savez_compressed(path, **arrays)


def draw(path, shown, found, losses):
    """Draw a row a photograph, the held-out part on the right of the line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(18, 9), layout="constrained")
    heights = [photograph.grey.shape[0] for photograph in shown]
    rows = figure.subplots(len(shown) + 1, 4, height_ratios=[*heights, 160])
    for n, (row, photograph) in enumerate(zip(rows, shown, strict=False)):
        row[0].imshow(photograph.grey, cmap="gray")
        row[0].set_title(f"{photograph.name}: held out on the right", fontsize=12)
        row[1].imshow(COLOURS[photograph.labels], interpolation="nearest")
        row[1].set_title("labels, by a classical recipe", fontsize=12)
        for axes, (name, results) in zip(row[2:], found.items(), strict=True):
            axes.imshow(COLOURS[results[n].classes], interpolation="nearest")
            axes.set_title(f"{name} upsampling, IoU {results[n].iou:.3f}", fontsize=12)
        for axes in row:
            axes.axvline(photograph.held_out - 0.5, color="tab:red", linewidth=2)
            axes.set(xticks=[], yticks=[])
    for axes in rows[-1]:
        axes.remove()
    axes = figure.add_subplot(rows[-1, 0].get_gridspec()[-1, :])  # all of the last row
    for name, values in losses.items():
        axes.semilogy(values, label=name)
    axes.set_title("cross-entropy while learning", fontsize=12)
    axes.legend()
    figure.suptitle("Three transposed convolutions as a decoder: fixed and learned", fontsize=17)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=whole, default=800, help="of Adam (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random numbers")
    parser.add_argument("--save", metavar="FILE.npz", help="store the learned weights")
    parser.add_argument("--picture", default="segment.png", help="the drawing")
    main(**parsed(parser))
