"""transpose, whose copies hopper reads."""

from .mutant import HALVES, OUTSIDE, Fault, Mutant

MUTANTS = [
    Mutant(
        "transpose copies the first matrix alone",
        "hopper",
        "transpose.cu",
        "array[b * t.b_step + i",
        "array[i",
        HALVES,
    ),
    Mutant(
        "transpose copies the first square of a matrix alone",
        "hopper",
        "transpose.cu",
        "j_begin = j_block * SIDE;",
        "j_begin = 0;",
        HALVES,
        axes=("1",),
    ),
    Mutant(
        "transpose copies squares as they are",
        "hopper",
        "transpose.cu",
        "square.element[near][far];",
        "square.element[far][near];",
        HALVES,
    ),
]

FAULTS = [
    Fault(
        "missing barrier between the reading and the writing of a square",
        "hopper",
        "transpose.cu",
        "    __syncthreads();\n",
        "",
        HALVES,
    ),
    Fault(
        "out-of-bounds read beyond the last row of a matrix",
        "hopper",
        "transpose.cu",
        "if (i < t.i_size && j < t.j_size)\n            square",
        "if (j < t.j_size)\n            square",
        HALVES,
        build="asan",
        seen=OUTSIDE,
    ),
    Fault(
        "out-of-bounds write beyond the last column of a matrix",
        "hopper",
        "transpose.cu",
        "if (i < t.i_size && j < t.j_size)\n            copy",
        "if (i < t.i_size)\n            copy",
        HALVES,
        build="asan",
        seen=OUTSIDE,
    ),
]
