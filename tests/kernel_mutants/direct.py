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
        " + c * p.weight_c;",
        ";",
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
        "        weight += KERNEL_Z * KERNEL_Y;\n",
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
        "if (mine.first < 0 || mine.first + INPUTS > last.in_size) {",
        "if (mine.first < 0) {",
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
        "        __syncthreads();\n\n#pragma unroll 1\n        for (int jz",
        "\n#pragma unroll 1\n        for (int jz",
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
]
