"""The kernel for few output channels; what it shares with depthwise is planted there."""

from .mutant import OUTSIDE, Fault, Mutant

MUTANTS = [
    Mutant(
        "direct begins all blocks of channels with the first one's inputs",
        "direct",
        "direct.cu",
        "(group * p.C + c) * p.x_c",
        "group * p.C * p.x_c",
    ),
    Mutant(
        "direct keeps the weights of the first channels",
        "direct",
        "direct.cu",
        " + c * p.weight_c\n",
        "\n",
    ),
    Mutant(
        "direct does not go on to the next channel's inputs",
        "direct",
        "direct.cu",
        "        from += p.x_c;\n",
        "",
    ),
    Mutant(
        "direct multiplies all channels with the weights of one",
        "direct",
        "direct.cu",
        "        weight += PARTS_X * PART_ROWS;\n",
        "",
    ),
    Mutant(
        "direct takes the first channels of a group",
        "direct",
        "direct.cu",
        " + first_m * p.weight_m",
        "",
    ),
    Mutant(
        "direct keeps what infinity has spoilt",
        "direct",
        "direct.cu",
        "if (spoilt) compute_anew",
        "if (false) compute_anew",
    ),
    Mutant(
        "direct looks for infinity at the near end of an axis alone",
        "direct",
        "direct.cu",
        "begin < 0 || end > last.in_size)",
        "begin < 0)",
    ),
    Mutant(
        "direct reads the inputs of the first part of a window for all",
        "direct",
        "direct.cu",
        "mine.first - part * PART_SHIFT, x_vectors",
        "mine.first, x_vectors",
    ),
    Mutant(
        "direct multiplies all parts of a window with the weights of the first",
        "direct",
        "direct.cu",
        " + part * PART_ROWS + kz",
        " + kz",
        axes=("1",),
    ),
    Mutant(
        "direct lets infinity meet the taps that the last part of a window lacks",
        "direct",
        "direct.cu",
        "PARTS_X > 1 || begin",
        "begin",
        axes=("1",),
    ),
]

FAULTS = [
    Fault(
        "direct: missing barrier before the next weights",
        "direct",
        "direct.cu",
        "        if (c > 0) __syncthreads();\n",
        "",
    ),
    Fault(
        "direct: missing barrier after the weights",
        "direct",
        "direct.cu",
        "        __syncthreads();\n\n#pragma unroll 1\n        for (int part",
        "\n#pragma unroll 1\n        for (int part",
    ),
    Fault(
        "direct: out-of-bounds read beyond the last channel",
        "direct",
        "direct.cu",
        "p.C - c < DEPTH ? static_cast<int>(p.C - c) : DEPTH;",
        "DEPTH;",
        build="asan",
        seen=OUTSIDE,
    ),
    Fault(
        "direct: out-of-bounds read beyond the last tap",
        "direct",
        "direct.cu",
        "last.kernel_size - first_tap, p",
        "KERNEL_X, p",
        build="asan",
        seen=OUTSIDE,
    ),
]
