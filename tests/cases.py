"""The geometries that tests run, as data: named cases with the reason for each, and random ones.

``x`` and ``weight`` are shapes; ``call`` holds keyword arguments as a user spells them; ``out`` is
the shape of the result, worked out by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
import ml_dtypes
import numpy as np

FLOATS = (np.dtype("f2"), np.dtype(ml_dtypes.bfloat16), np.dtype("f4"), np.dtype("f8"))
COMPLEX = (np.dtype("c8"), np.dtype("c16"))
INTEGERS = (np.dtype("i4"), np.dtype("i8"))
DTYPES = (*FLOATS, *COMPLEX, *INTEGERS)


@dataclass(frozen=True)
class Case:
    """One call, without its data."""

    name: str
    why: str
    x: tuple[int, ...]
    weight: tuple[int, ...]
    call: dict[str, Any] = field(default_factory=dict)
    out: tuple[int, ...] = ()
    bias: bool = True

    def __str__(self):
        return self.name

    @property
    def out_channels(self):
        return self.weight[1] * self.call.get("groups", 1)

    def integers(self, dtype, rng):
        """Return x, weight and bias of small whole numbers: sums are exact in every dtype."""
        return self._arrays(dtype, lambda n: rng.integers(-8, 9, n))

    def reals(self, dtype, rng):
        return self._arrays(dtype, rng.standard_normal)

    def _arrays(self, dtype, numbers):
        def array(shape):
            values = numbers(shape)
            if dtype.kind == "c":
                values = values + 1j * numbers(shape)
            return values.astype(dtype)

        return array(self.x), array(self.weight), array(self.out_channels) if self.bias else None


NAMED = [
    # The window: stride, kernel, dilation.
    Case("pointwise", "no window at all: a product of matrices",
         (2, 3, 5), (3, 4, 1), {}, (2, 4, 5)),
    Case("one input", "the kernel itself appears, not flipped",
         (1, 1, 1, 1), (1, 1, 3, 2), {}, (1, 1, 3, 2)),
    Case("stride is kernel", "tiles that touch and do not overlap",
         (2, 3, 4, 4), (3, 2, 2, 2), {"stride": 2}, (2, 2, 8, 8)),
    Case("U-Net up", "the usual doubling",
         (1, 4, 5, 6), (4, 2, 2, 2), {"stride": 2}, (1, 2, 10, 12)),
    Case("GAN up", "k4 s2 p1 doubles exactly",
         (2, 4, 4, 4), (4, 3, 4, 4), {"stride": 2, "padding": 1}, (2, 3, 8, 8)),
    Case("FCN-8s", "k16 s8: two taps in each of 64 phases",
         (1, 2, 4, 5), (2, 2, 16, 16), {"stride": 8, "padding": 4}, (1, 2, 32, 40)),
    Case("k3 s2", "phases with two taps and with one",
         (1, 2, 5, 5), (2, 2, 3, 3), {"stride": 2}, (1, 2, 11, 11)),
    Case("k3 s2, channels of 7", "phases that nearly fill a tile's columns",
         (1, 2, 3, 3), (2, 7, 3, 3), {"stride": 2}, (1, 7, 7, 7)),
    Case("stride beyond kernel", "phases without a tap hold the bias alone",
         (1, 2, 3, 3), (2, 3, 2, 2), {"stride": 4}, (1, 3, 10, 10)),
    Case("stride beyond kernel, 1d", "most outputs hold the bias alone",
         (1, 2, 4), (2, 3, 1), {"stride": 7}, (1, 3, 22)),
    Case("strides differ", "axes swapped would show",
         (1, 2, 4, 3), (2, 3, 3, 5), {"stride": (1, 3)}, (1, 3, 6, 11)),
    Case("vocoder", "1-D, kernel twice the stride",
         (1, 6, 9), (6, 3, 16), {"stride": 8, "padding": 4}, (1, 3, 72)),
    Case("overlap of four", "an inverse STFT: k = 4 strides, one output",
         (1, 5, 7), (5, 1, 16), {"stride": 4}, (1, 1, 40)),
    Case("dilation", "holes between taps",
         (1, 2, 4, 4), (2, 2, 3, 3), {"dilation": 2}, (1, 2, 8, 8)),
    Case("dilations differ", "axes swapped would show",
         (1, 2, 4, 4), (2, 2, 3, 2), {"dilation": (1, 5)}, (1, 2, 6, 9)),
    Case("stride and dilation share a factor", "taps reach only every other phase",
         (1, 1, 3, 3), (1, 1, 3, 3), {"stride": 2, "dilation": 2}, (1, 1, 9, 9)),
    Case("stride and dilation, 4 and 6", "common factor 2, neither divides the other",
         (1, 2, 5), (2, 2, 4), {"stride": 4, "dilation": 6}, (1, 2, 35)),
    Case("stride and dilation coprime", "every phase has a tap of its own",
         (1, 2, 5), (2, 2, 3), {"stride": 3, "dilation": 2}, (1, 2, 17)),
    Case("dilation beyond input", "copies of the input that never meet",
         (1, 2, 3), (2, 2, 3), {"dilation": 10}, (1, 2, 23)),
    Case("kernel beyond input", "every input under every tap",
         (1, 2, 2, 3), (2, 2, 7, 8), {}, (1, 2, 8, 10)),
    Case("long kernel", "1-D, many taps", (1, 1, 3), (1, 1, 100), {"stride": 3}, (1, 1, 106)),
    # Where the output window lies.
    Case("padding", "cropped alike at both ends",
         (1, 2, 4, 4), (2, 2, 3, 3), {"padding": 1}, (1, 2, 4, 4)),
    Case("paddings differ", "one per axis",
         (1, 2, 4, 4), (2, 2, 5, 5), {"padding": (2, 0)}, (1, 2, 4, 8)),
    Case("padding crops whole taps", "padding beyond dilation * (k - 1) crops inputs as well",
         (1, 1, 9), (1, 1, 3), {"stride": 2, "padding": 3}, (1, 1, 13)),
    Case("padding leaves one output", "the smallest output there is",
         (1, 2, 3, 3), (2, 2, 3, 3), {"padding": 2}, (1, 2, 1, 1)),
    Case("pairs", "begin and end differ",
         (1, 2, 4, 5), (2, 2, 3, 3), {"padding": ((1, 0), (0, 2))}, (1, 2, 5, 5)),
    Case("pair in 1d", "written with two brackets",
         (1, 2, 5), (2, 2, 4), {"padding": ((1, 2),)}, (1, 2, 5)),
    Case("negative pair at the beginning", "extended with the bias",
         (1, 2, 3), (2, 2, 2), {"padding": ((-2, 0),)}, (1, 2, 6)),
    Case("negative pair at the end", "extended with the bias",
         (1, 2, 3), (2, 2, 2), {"stride": 2, "padding": ((0, -3),)}, (1, 2, 9)),
    Case("negative pairs all round", "the window is larger than the full result",
         (1, 1, 2, 2), (1, 2, 2, 2), {"padding": ((-1, -2), (-3, -4))}, (1, 2, 6, 10)),
    Case("crop all but the extension", "no input reaches the window: bias alone",
         (1, 2, 2), (2, 2, 2), {"padding": ((3, -2),)}, (1, 2, 2)),
    Case("window before the result", "no input reaches the window: bias alone",
         (1, 2, 2), (2, 2, 2), {"padding": ((-4, 4),)}, (1, 2, 3)),
    Case("output_padding", "one more row at the far end, with real values where a tap reaches it",
         (1, 2, 4, 4), (2, 2, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1},
         (1, 2, 8, 8)),
    Case("output_paddings differ", "one per axis",
         (1, 2, 3, 3), (2, 2, 3, 3),
         {"stride": (3, 2), "padding": (0, 1), "output_padding": (2, 0)}, (1, 2, 11, 5)),
    Case("output_padding beyond the taps", "rows that only the bias reaches",
         (1, 2, 3, 3), (2, 3, 2, 2), {"stride": 4, "output_padding": 3}, (1, 3, 13, 13)),
    Case("output_padding below dilation", "stride <= output_padding < dilation, as PyTorch allows",
         (1, 1, 1, 3), (1, 1, 2, 2), {"dilation": 4, "output_padding": 2}, (1, 1, 7, 9)),
    Case("output_size", "instead of output_padding",
         (1, 2, 4, 4), (2, 2, 3, 3), {"stride": 2, "padding": 1, "output_size": (8, 7)},
         (1, 2, 8, 7)),
    Case("output_size as an int", "the same for all axes",
         (1, 2, 4, 4), (2, 2, 3, 3), {"stride": 2, "padding": 1, "output_size": 8}, (1, 2, 8, 8)),
    Case("same", "in_size * stride, the odd element cropped from the end",
         (1, 2, 4, 5), (2, 2, 3, 4), {"stride": 1, "padding": "same"}, (1, 2, 4, 5)),
    Case("same_upper", "another name for same",
         (1, 2, 4), (2, 2, 5), {"stride": 2, "padding": "same_upper"}, (1, 2, 8)),
    Case("same_lower", "the odd element cropped from the beginning",
         (1, 2, 4), (2, 2, 5), {"stride": 2, "padding": "same_lower"}, (1, 2, 8)),
    Case("same with a short kernel", "rows appended at the end",
         (1, 2, 4), (2, 2, 2), {"stride": 5, "padding": "same"}, (1, 2, 20)),
    Case("same_lower with a short kernel", "rows appended at the end here too",
         (1, 2, 4), (2, 2, 2), {"stride": 5, "padding": "same_lower"}, (1, 2, 20)),
    Case("same with dilation", "counts the dilated kernel",
         (1, 2, 6), (2, 2, 3), {"dilation": 3, "padding": "same"}, (1, 2, 6)),
    Case("valid", "the full result", (1, 2, 4), (2, 2, 5), {"stride": 2, "padding": "valid"},
         (1, 2, 11)),
    Case("valid with a short kernel", "the last stride is filled up, as in TensorFlow",
         (1, 2, 4), (2, 2, 2), {"stride": 5, "padding": "valid"}, (1, 2, 20)),
    # Channels, groups, batch.
    Case("groups", "two blocks of channels", (2, 4, 5), (4, 3, 3), {"groups": 2}, (2, 6, 7)),
    Case("groups, M/g is not C/g", "blocks that are not square",
         (1, 6, 4, 4), (6, 1, 3, 3), {"groups": 2, "stride": 2}, (1, 2, 9, 9)),
    Case("depthwise", "a group for each channel",
         (2, 5, 4, 4), (5, 1, 3, 3), {"groups": 5, "stride": 2}, (2, 5, 9, 9)),
    Case("depthwise with a multiplier", "several outputs for each channel",
         (1, 3, 4, 4), (3, 4, 3, 3), {"groups": 3, "padding": 1}, (1, 12, 4, 4)),
    Case("channels of 5", "no multiple of a vector's width",
         (1, 5, 6, 6), (5, 3, 3, 3), {"stride": 2, "padding": 1}, (1, 3, 11, 11)),
    Case("channels of 7 and 17", "no multiple of a tile",
         (1, 7, 6), (7, 17, 3), {"stride": 2, "padding": 1}, (1, 17, 11)),
    Case("RGB head", "many channels to three",
         (1, 32, 4, 4), (32, 3, 4, 4), {"stride": 2, "padding": 1}, (1, 3, 8, 8)),
    Case("many outputs", "one channel to many", (1, 1, 3, 3), (1, 40, 2, 2), {}, (1, 40, 4, 4)),
    Case("no bias", "absent is not zero-filled by accident",
         (1, 2, 4, 4), (2, 2, 3, 3), {"stride": 4, "padding": 1}, (1, 2, 13, 13), bias=False),
    Case("batch of 5", "items do not mix", (5, 2, 3), (2, 3, 3), {"stride": 2}, (5, 3, 7)),
    Case("batch of 0", "an empty result", (0, 2, 3, 3), (2, 3, 3, 3), {"stride": 2}, (0, 3, 7, 7)),
    Case("0 input channels", "bias alone", (1, 0, 3, 3), (0, 3, 3, 3), {"stride": 2}, (1, 3, 7, 7)),
    Case("0 input channels, no bias", "zeros",
         (2, 0, 3), (0, 3, 3), {"groups": 2}, (2, 6, 5), bias=False),
    Case("0 output channels", "an empty result", (1, 2, 3), (2, 0, 3), {}, (1, 0, 5)),
    Case("unbatched 1d", "no batch axis in, none out", (2, 5), (2, 3, 3), {"stride": 2}, (3, 11)),
    Case("unbatched 2d", "no batch axis in, none out",
         (2, 5, 4), (2, 3, 3, 3), {"stride": 2, "groups": 2}, (6, 11, 9)),
    Case("unbatched 3d", "no batch axis in, none out",
         (1, 2, 2, 2), (1, 2, 2, 2, 2), {"stride": 2}, (2, 4, 4, 4)),
    Case("unbatched output_size", "sizes are counted from the last axis",
         (1, 15, 13), (1, 1, 16, 16), {"stride": 16, "padding": 7, "output_size": (240, 200)},
         (1, 240, 200)),
    # Three axes.
    Case("3d", "every axis different",
         (1, 2, 3, 4, 2), (2, 3, 3, 2, 4), {"stride": (2, 1, 3)}, (1, 3, 7, 5, 7)),
    Case("3d all at once", "padding, dilation, groups and output_padding together",
         (2, 4, 3, 2, 3), (4, 1, 2, 3, 3),
         {"stride": (2, 3, 1), "padding": (1, 0, 2), "dilation": (1, 2, 3), "groups": 2,
          "output_padding": (1, 2, 0)}, (2, 2, 5, 10, 5)),
    Case("3d pairs", "a pair per axis",
         (1, 1, 2, 2, 2), (1, 1, 3, 3, 3), {"padding": ((0, 1), (2, 0), (-1, 1))}, (1, 1, 3, 2, 4)),
    Case("3d output_size", "three numbers",
         (1, 2, 8, 8, 8), (2, 2, 3, 3, 3), {"output_size": (10, 10, 10)}, (1, 2, 10, 10, 10)),
]  # fmt: skip


SMALL_GROUPS = [
    Case("groups of 5 to 7", "no power of two anywhere",
         (2, 10, 5, 9), (10, 7, 3, 4), {"stride": (2, 3), "padding": 1, "groups": 2}),
    Case("groups of 7 to 5", "no power of two anywhere",
         (1, 14, 3, 20), (14, 5, 2, 5), {"stride": 2, "padding": (0, 2), "groups": 2}),
    Case("groups of 8 to 16", "two parts of output channels, phases without a tap",
         (1, 8, 5, 6), (8, 16, 3, 5),
         {"stride": (2, 3), "dilation": (2, 1), "padding": (1, 2)}),
    Case("FCN-8s, depthwise", "256 taps, rows that fill no vector",
         (2, 3, 5, 11), (3, 1, 16, 16),
         {"stride": 8, "padding": ((4, 3), (4, 5)), "groups": 3}),
    Case("alias-free", "12 taps, several blocks and tiles of a row",
         (1, 2, 3000), (2, 1, 12), {"stride": 2, "padding": ((5, 6),), "groups": 2}),
    Case("61 taps", "with runs of 4 outputs these would be 64 inputs, one more than there are bits",
         (1, 2, 90), (2, 1, 61), {"padding": 30, "groups": 2}),
    Case("an axis that ends within a vector", "nothing but its length says so",
         (1, 1, 30), (1, 1, 4), {"stride": 2}),
    Case("rows of whole vectors", "whole vectors in and out, several tiles",
         (1, 2, 33, 64), (2, 1, 4, 4), {"stride": 2, "padding": 1, "groups": 2}),
    Case("negative pairs", "the window is larger than the full result",
         (1, 2, 6, 8), (2, 1, 4, 4),
         {"stride": 2, "padding": ((-3, 2), (-5, -9)), "groups": 2}),
    Case("stride beyond kernel", "phases without a tap hold the bias alone",
         (1, 3, 4, 5), (3, 2, 2, 3), {"stride": (5, 7), "groups": 3}),
    Case("dilation and stride share a factor", "taps reach every other phase",
         (1, 3, 5, 9), (3, 1, 3, 3), {"stride": 4, "dilation": 6, "groups": 3}),
    Case("volume", "small groups in three axes",
         (1, 4, 4, 5, 9), (4, 3, 3, 5, 7),
         {"stride": 2, "padding": (1, 2, 3), "output_padding": 1, "groups": 2}),
    Case("volume, depthwise", "other strides and dilations in each axis",
         (2, 3, 4, 5, 6), (3, 1, 2, 3, 4),
         {"stride": (3, 1, 2), "dilation": (1, 3, 2), "padding": (1, 2, 3), "groups": 3}),
]  # fmt: skip
"""For the kernel of small groups, which compiles every window by itself."""


SINGLE_CHANNELS = [
    Case("alias-free, wide", "walks that begin and end within a row, a channel left over",
         (2, 6, 70), (6, 1, 12), {"stride": 2, "padding": ((5, 6),), "groups": 6}),
    Case("more channels than lanes", "the last slice is not full; whole vectors",
         (1, 268, 3), (268, 1, 3), {"stride": 2, "groups": 268}),
    Case("CenterNet", "rows of all phases, whole vectors",
         (2, 8, 5, 9), (8, 1, 4, 4), {"stride": 2, "padding": 1, "groups": 8}),
    Case("walks within rows", "no input of theirs is beyond an end, though a whole row may be",
         (1, 4, 5, 45), (4, 1, 4, 4), {"stride": 2, "groups": 4}),
    Case("FCN-8s", "256 taps, each thread holds those of one phase of rows",
         (2, 3, 5, 11), (3, 1, 16, 16),
         {"stride": 8, "padding": ((4, 3), (4, 5)), "groups": 3}),
    Case("many taps", "read from shared memory again and again",
         (1, 4, 3, 6), (4, 1, 24, 24), {"stride": 4, "padding": 3, "groups": 4}),
    Case("negative pairs of rows", "the window is larger than the full result",
         (1, 2, 6, 8), (2, 1, 4, 4),
         {"stride": 2, "padding": ((-3, 2), (-5, -9)), "groups": 2}),
    Case("stride beyond kernel, single channels", "phases without a tap hold the bias alone",
         (1, 4, 4, 5), (4, 1, 2, 3), {"stride": (5, 7), "groups": 4}),
    Case("phases of rows without a tap", "threads whose rows are all absent",
         (1, 2, 5, 9), (2, 1, 3, 3), {"stride": (7, 8), "dilation": (14, 12), "groups": 2}),
    Case("volume, single channels", "other strides and dilations in each axis",
         (2, 4, 4, 5, 6), (4, 1, 2, 3, 4),
         {"stride": (3, 1, 2), "dilation": (1, 3, 2), "padding": (1, 2, 3), "groups": 4}),
    Case("volume, all phases of rows", "phases of planes by turns",
         (1, 2, 3, 4, 5), (2, 1, 3, 3, 3),
         {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
]  # fmt: skip
"""For the kernel of single channels that are nearest in memory."""


FEW_OUTPUTS = [
    Case("RGB head", "whole vectors in and out, several blocks",
         (2, 9, 17, 16), (9, 3, 4, 4), {"stride": 2, "padding": 1}),
    Case("super-resolution", "81 taps, rows of all phases and of no whole vectors",
         (1, 5, 7, 11), (5, 1, 9, 9), {"stride": 3, "padding": 4, "output_padding": 2}),
    Case("groups of 5 and 7", "no power of two anywhere",
         (2, 10, 5, 19), (10, 7, 3, 4), {"stride": (2, 3), "padding": 1, "groups": 2}),
    Case("prime output channels", "every channel by itself",
         (1, 4, 6, 9), (4, 19, 3, 5), {"stride": (1, 2)}),
    Case("vocoder", "many channels, long taps, an end within a vector",
         (2, 23, 66), (23, 4, 16), {"stride": 8, "padding": 4}),
    Case("a long window", "parts, the last not full, runs that touch no end, blocks of channels",
         (1, 3, 230), (3, 2, 67), {"padding": 30}),
    Case("a long window with a stride", "parts of both phases, groups",
         (1, 4, 3, 50), (4, 1, 2, 150), {"stride": (1, 2), "padding": (0, 60), "groups": 4}),
    Case("a long window with gaps", "one part would span 113 inputs",
         (2, 2, 130), (2, 3, 15), {"dilation": 8, "padding": 20}),
    Case("25 taps", "runs of 8 outputs need 32 inputs, as many as a word has bits",
         (2, 3, 50), (3, 2, 25), {"padding": 12}),
    Case("one output", "a row of one column, groups",
         (2, 6, 5, 1), (6, 2, 3, 1), {"stride": (2, 1), "groups": 2}),
    Case("phases without a tap", "these outputs are the bias",
         (1, 3, 4, 5), (3, 2, 2, 3), {"stride": (5, 7)}),
    Case("dilation and stride have a factor in common", "taps reach every other phase",
         (1, 3, 5, 9), (3, 2, 3, 3), {"stride": 4, "dilation": 6}),
    Case("a window beyond the full result", "negative pairs",
         (1, 3, 6, 8), (3, 2, 4, 4), {"stride": 2, "padding": ((-3, 2), (-5, -9))}),
    Case("volume of few outputs", "three axes, as wide as they come",
         (1, 5, 3, 4, 13), (5, 8, 3, 5, 7), {"padding": (1, 2, 3)}),
    Case("volume with strides", "other strides and dilations in each axis",
         (2, 4, 4, 5, 6), (4, 3, 2, 3, 4),
         {"stride": (3, 1, 2), "dilation": (1, 3, 2), "padding": (1, 2, 3)}),
    Case("vectors of channels", "the last block of channels is not full, vectors out too",
         (3, 40, 5, 7), (40, 4, 4, 4), {"stride": 2, "padding": 1}),
    Case("vectors of channels in groups", "8 to 8 channels, three axes, phases of one tap and two",
         (1, 16, 3, 4, 5), (16, 8, 3, 3, 3), {"stride": 2, "padding": 1, "groups": 2}),
    Case("vectors of channels, part by part", "a window too long for registers",
         (2, 12, 150), (12, 2, 90), {"padding": 40}),
]  # fmt: skip
"""For the kernels of few output channels, which compile every window by itself."""


ODD = [
    Case("five groups of 7 to 5", "no power of two anywhere",
         (2, 35, 3, 4), (35, 5, 3, 2), {"stride": (2, 1), "padding": (1, 0), "groups": 5}),
    Case("seven groups of 5 to 7", "no power of two anywhere",
         (1, 35, 4, 3), (35, 7, 2, 3), {"stride": 2, "padding": (0, 1), "groups": 7}),
    Case("five groups of 17 to 7", "steps that are not whole",
         (2, 85, 3), (85, 7, 4), {"stride": 2, "groups": 5}),
    Case("one column", "a single output channel in a single phase: a matrix times a vector",
         (2, 7, 3, 21), (7, 1, 3, 5)),
    Case("one column of many channels", "rows in more than one block",
         (3, 40, 33), (40, 1, 3)),
    Case("dilation below stride, common factor", "taps reach every other phase",
         (2, 24, 4), (24, 7, 3), {"stride": 4, "dilation": 2}),
    Case("dilation beyond stride, common factor", "taps reach every other phase",
         (2, 20, 7), (20, 9, 4), {"stride": 4, "dilation": 6}),
    Case("dilation and stride, common factors", "that of one axis is all of the dilation",
         (1, 7, 4, 3), (7, 5, 3, 2), {"stride": (6, 3), "dilation": (4, 3)}),
    Case("more than a tile of everything", "rows, columns and channels that no tile divides",
         (2, 72, 9, 11), (72, 136, 4, 4), {"stride": 2, "padding": 1}),
    Case("five single channels", "fewer than a vector has, and one more than half of one",
         (2, 5, 4, 9), (5, 1, 4, 4), {"stride": 2, "padding": 1, "groups": 5}),
    Case("seven single channels", "one fewer than a vector of halves has",
         (1, 7, 5, 6), (7, 1, 3, 3), {"stride": (2, 3), "groups": 7}),
    Case("single channels, common factors", "dilations below the strides",
         (2, 6, 4, 5), (6, 1, 3, 3), {"stride": (6, 4), "dilation": (4, 2), "groups": 6}),
]  # fmt: skip
"""Odd numbers of everything, for every kernel that can compute them."""


def has_single_channels(case):
    """Tell whether each channel is its own group."""
    channels = case.weight[0] // case.call.get("groups", 1), case.weight[1]
    return channels == (1, 1) and 0 not in (*case.x, *case.weight)


def has_small_groups(case):
    """Tell whether groups have at most 8 channels to 16."""
    channels, out_channels = case.weight[0] // case.call.get("groups", 1), case.weight[1]
    return channels <= 8 and out_channels <= 16 and 0 not in (*case.x, *case.weight)


WIDE = [
    Case("U-Net up", "one tap a phase, whole chunks of 16 bytes",
         (2, 16, 5, 6), (16, 8, 2, 2), {"stride": 2}),
    Case("pairs", "both phases of a row are stored together",
         (2, 16, 9), (16, 8, 2), {"stride": 2}),
    Case("pairs in rows of odd length", "of which every other row begins within a pair",
         (2, 16, 9), (16, 8, 2), {"stride": 2, "padding": ((0, 1),)}),
    Case("GAN up", "four shifts, two chunks each, several steps",
         (2, 48, 5, 4), (48, 16, 4, 4), {"stride": 2, "padding": 1}),
    Case("k3 s2", "phases of 1, 2, 2 and 4 taps, in blocks of their own",
         (1, 24, 5, 5), (24, 32, 3, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    Case("RGB head", "12 columns in all",
         (1, 40, 6, 7), (40, 3, 4, 4), {"stride": 2, "padding": 1}),
    Case("channels of 20", "copies of 8 bytes", (1, 20, 9), (20, 12, 5), {"stride": 3}),
    Case("channels of 10", "copies of 4 bytes", (1, 10, 9), (10, 18, 5), {"stride": 3}),
    Case("channels of 9", "no copy fits", (1, 9, 9), (9, 17, 5), {"stride": 3}),
    Case("groups", "blocks that begin inside x's channels",
         (2, 32, 4, 5), (32, 8, 3, 3), {"stride": 2, "groups": 2}),
    Case("groups of 12", "aligned to 8 bytes alone",
         (1, 36, 7), (36, 10, 4), {"stride": 2, "groups": 3}),
    Case("vocoder", "8 phases, so many steps that a ring of four stages goes round",
         (1, 136, 20), (136, 4, 16), {"stride": 8, "padding": 4}),
    Case("dilation", "shifts of every tap", (1, 16, 6, 6), (16, 8, 3, 2), {"dilation": (2, 5)}),
    Case("volume", "three axes",
         (1, 16, 3, 4, 3), (16, 8, 2, 3, 2), {"stride": (2, 1, 2), "padding": (0, 1, 0)}),
    Case("channels of 75 to 24", "a last chunk that is not full, phases that end within a tile",
         (1, 75, 9), (75, 24, 5), {"stride": 3}),
]  # fmt: skip
"""Channels enough for tensor cores."""


SHARED_WEIGHTS = [
    Case("three images", "too long to share a tile; the last one has no other beside it",
         (3, 72, 66), (72, 72, 4), {"stride": 2, "padding": 1}, (3, 72, 132)),
    Case("five images in two groups", "a ring goes round, and no image begins where it does",
         (5, 80, 65), (80, 80, 3), {"stride": 2, "groups": 2}, (5, 160, 131)),
]  # fmt: skip
"""Several tiles of rows, so that blocks of a cluster share weights; an odd number of them."""


LONG_SUMS = [
    Case("few outputs", "a last step that is not full",
         (2, 35, 3), (35, 3, 2), {"stride": 2}, (2, 3, 6)),
    Case("one output", "one row, one column", (1, 40, 1), (40, 1, 2), {"padding": ((1, 0),)}),
    Case("dilation and stride share a factor", "taps reach every other phase",
         (2, 24, 4), (24, 7, 3), {"stride": 4, "dilation": 2}),
    Case("groups of 17 to 5", "splits of one step and of two, k3 s2",
         (2, 51, 3, 4), (51, 5, 3, 3), {"stride": 2, "padding": 1, "groups": 3}),
    Case("groups of 33 to 7", "more splits than a group has steps",
         (1, 66, 2, 3), (66, 7, 2, 3), {"stride": (1, 2), "groups": 2}),
    Case("volume", "whole steps in three axes",
         (1, 32, 2, 1, 3), (32, 5, 2, 1, 3), {"stride": (2, 1, 3), "padding": (1, 0, 1)}),
]  # fmt: skip
"""Channels enough for blocks that share sums, if these are long: tests say how long that is."""


LARGE = [
    Case("decoder", "rows and output channels in several blocks",
         (1, 16, 96, 100), (16, 24, 4, 4), {"stride": 2, "padding": 1}, (1, 24, 192, 200)),
    Case("vocoder, large", "a long axis in several blocks",
         (1, 64, 700), (64, 32, 16), {"stride": 8, "padding": 4}, (1, 32, 5600)),
    Case("many output channels", "more channels than a block takes",
         (1, 8, 40, 40), (8, 200, 3, 3), {"stride": 2}, (1, 200, 81, 81)),
    Case("many small maps", "several items of the batch at once",
         (40, 32, 5, 5), (32, 16, 4, 4), {"stride": 2, "padding": 1}, (40, 16, 10, 10)),
    Case("depthwise, large", "many groups in a block",
         (2, 96, 60, 60), (96, 1, 4, 4), {"stride": 2, "groups": 96}, (2, 96, 122, 122)),
    Case("one channel to many, grouped", "thin groups, same padding",
         (2, 6, 70, 71), (6, 3, 3, 3), {"padding": "same", "groups": 6}, (2, 18, 70, 71)),
    Case("one channel to many", "one group of one channel, cropped and extended",
         (3, 1, 80, 81), (1, 12, 5, 5), {"stride": 2, "padding": 3, "output_padding": 1},
         (3, 12, 158, 160)),
    Case("groups of four", "different strides and dilations in blocks",
         (2, 12, 50, 40), (12, 20, 3, 5), {"stride": (2, 3), "dilation": (2, 1), "groups": 3},
         (2, 60, 103, 122)),
    Case("stride of 16", "hundreds of phases, stored side by side",
         (1, 4, 30, 31), (4, 2, 32, 32), {"stride": 16, "padding": 8}, (1, 2, 480, 496)),
    Case("FCN-8s, large", "64 phases of four taps, 21 classes",
         (1, 21, 20, 21), (21, 21, 16, 16), {"stride": 8, "padding": 4}, (1, 21, 160, 168)),
    Case("far taps", "taps that reach into other blocks",
         (1, 2, 5000), (2, 3, 7), {"stride": 3, "dilation": 100}, (1, 3, 15598)),
    Case("inverse STFT", "four strides, one output",
         (2, 65, 120), (65, 1, 256), {"stride": 64}, (2, 1, 7872)),
    Case("kernel beyond a block", "so many taps that few positions fill the cache",
         (1, 2, 1500), (2, 1, 1500), {}, (1, 1, 2999)),
    Case("window moved away", "blocks that no input reaches",
         (1, 8, 64, 64), (8, 8, 3, 3), {"stride": 2, "padding": ((-90, 40), (30, -70))},
         (1, 8, 179, 169)),
    Case("volume", "three axes in blocks",
         (1, 8, 10, 14, 12), (8, 6, 3, 4, 2),
         {"stride": (2, 1, 3), "dilation": (1, 2, 1), "padding": ((1, 0), (0, 2), (1, 1))},
         (1, 6, 20, 18, 33)),
]  # fmt: skip
"""Too large for one block of any backend, small enough for the oracle."""


def draw(pick, ndim, index=""):
    """Return a random case; ``pick(low, high)`` chooses an int from low to high."""
    axes = range(ndim)
    largest = {1: 9, 2: 5, 3: 3}[ndim]
    groups = pick(1, 3)
    in_channels = groups * (0 if pick(0, 30) == 0 else pick(1, 4))
    in_size = [pick(1, largest) for _ in axes]
    kernel_size = [pick(1, largest) for _ in axes]
    stride = _spell(pick, [pick(1, 5) for _ in axes])
    dilation = _spell(pick, [1] * ndim if pick(0, 1) else [pick(1, 4) for _ in axes])
    call = {"stride": stride, "dilation": dilation, "groups": groups}

    s, d = (value if isinstance(value, tuple) else (value,) * ndim for value in (stride, dilation))
    full = [(in_size[a] - 1) * s[a] + d[a] * (kernel_size[a] - 1) + 1 for a in axes]
    spelling = pick(0, 5)
    if spelling == 0:
        names = ("valid", "same", "same_upper", "same_lower")
        call["padding"] = names[pick(0, 3)]
    else:
        extra = [pick(0, max(s[a], d[a]) - 1) for a in axes]
        if spelling in (1, 2):
            begin = end = [pick(0, (full[a] - 1) // 2) for a in axes]
            call["padding"] = _spell(pick, begin)
        else:
            begin = [pick(-2, full[a] - 1) for a in axes]
            end = [pick(-2, full[a] - 1 - begin[a]) for a in axes]
            call["padding"] = tuple(zip(begin, end, strict=True))
        if pick(0, 1):
            call["output_padding"] = _spell(pick, extra)
        else:
            sizes = [full[a] - begin[a] - end[a] + extra[a] for a in axes]
            call["output_size"] = _spell(pick, sizes)
    batch = [] if pick(0, 7) == 0 else [0 if pick(0, 30) == 0 else pick(1, 3)]
    return Case(
        f"random {ndim}d {index}", "drawn at random",
        (*batch, in_channels, *in_size), (in_channels, pick(1, 4), *kernel_size),
        call, bias=bool(pick(0, 2)),
    )  # fmt: skip


def _spell(pick, values):
    """Spell equal values as one int now and then."""
    alike = len(set(values)) == 1
    return values[0] if alike and pick(0, 1) else tuple(values)


def random_cases(count, seed=0):
    """Return cases of one, two and three axes, by turns; the same ones for the same seed."""
    rng = np.random.default_rng(seed)

    def pick(low, high):
        return int(rng.integers(low, high, endpoint=True))

    return [draw(pick, 1 + index % 3, index) for index in range(count)]


@st.composite
def calls(draw_from, ndim=None):
    """Hypothesis strategy of cases; it shrinks towards small shapes and default arguments."""
    ndim = ndim or draw_from(st.integers(1, 3))
    return draw(lambda low, high: draw_from(st.integers(low, high)), ndim)
