"""The adjoint, and the gradients of weight and bias."""

from .mutant import OUTSIDE, WRONG, Fault, Mutant

MUTANTS = [
    # The adjoint.
    Mutant(
        "the adjoint reads without a stride",
        "gather, adjoint",
        "geometry.cuh",
        "return q * axis.in_stride + j",
        "return q + j",
    ),
    Mutant(
        "the adjoint forgets the padding",
        "gather, adjoint",
        "geometry.cuh",
        "axis.dilation.divisor - axis.pad_begin;",
        "axis.dilation.divisor;",
    ),
    # Both gradients of the weight.
    Mutant(
        "forgets the dilation",
        "weight_gradient",
        "weight_gradient.cuh",
        "k * axis.dilation - axis.pad_begin",
        "k - axis.pad_begin",
    ),
    Mutant(
        "stores taps as if output channels were innermost",
        "weight_gradient_narrow",
        "weight_gradient.cuh",
        "column.to = m * p.taps + tap;",
        "column.to = tap * p.M.divisor + m;",
    ),
    Mutant(
        "reads one output beyond the end",
        "weight_gradient",
        "weight_gradient.cuh",
        "p.axis[a].out_size.divisor);\n    return there;",
        "p.axis[a].out_size.divisor + 1);\n    return there;",
    ),
    Mutant(
        "mixes the items of a batch",
        "weight_gradient_narrow",
        "weight_gradient.cuh",
        "    position.y_at += index * p.y_n;\n",
        "",
    ),
    Mutant(
        "sums the bias of the first item",
        "weight_gradient",
        "weight_gradient.cuh",
        "widen(y[n * p.y_n + at])",
        "widen(y[at])",
    ),
    Mutant(
        "leaves the parts of the bias where those of the weight are",
        "weight_gradient",
        "weight_gradient.cuh",
        "weight_parts(workspace, p.splits.divisor, p)\n           + ",
        "workspace + ",
    ),
    # The matrix product.
    Mutant(
        "keeps the last run of a long sum alone",
        "weight_gradient",
        "weight_gradient.cu",
        "if (!anew) add(sum[i][j], part);",
        "",
    ),
    Mutant(
        "adds a run twice",
        "weight_gradient",
        "weight_gradient.cu",
        "                    sum[i][j] = {};\n",
        "",
    ),
    Mutant(
        "lets infinity meet the zeros of what is absent",
        "weight_gradient",
        "weight_gradient.cu",
        "if (!is_finite(part)) part",
        "if (false) part",
    ),
    Mutant(
        "begins every split at the first position",
        "weight_gradient",
        "weight_gradient.cu",
        "first = split * p.split_positions;",
        "first = 0;",
        axes=("1",),
    ),
    # Few channels.
    Mutant(
        "narrow: takes the first group's input",
        "weight_gradient_narrow",
        "weight_gradient_narrow.cu",
        "x += (group * p.C + c_begin)",
        "x += c_begin",
    ),
    Mutant(
        "narrow: lanes store each other's sums",
        "weight_gradient_narrow",
        "weight_gradient_narrow.cu",
        "shared.sums[element * THREADS + lane];",
        "shared.sums[element * THREADS];",
    ),
    Mutant(
        "adds up all but the last pair",
        "weight_gradient_narrow",
        "sums.cuh",
        "half >= LANES;",
        "half > LANES;",
    ),
    # The second pass.
    Mutant(
        "adds up every split but the last",
        "weight_gradient_narrow",
        "sum_splits.cu",
        "split < splits;",
        "split + 1 < splits;",
    ),
]

FAULTS = [
    Fault(
        "missing barrier at the end of a step",
        "weight_gradient",
        "weight_gradient.cu",
        "        __syncthreads();\n    }\n\n    // Infinity",
        "    }\n\n    // Infinity",
    ),
    Fault(
        "positions are looked up where the copies of this step still read them",
        "weight_gradient",
        "weight_gradient.cu",
        "block.look_up(step + 2, p, shared.position[now]);",
        "block.look_up(step + 2, p, shared.position[next]);",
    ),
    Fault(
        "missing wait",
        "weight_gradient",
        "weight_gradient.cu",
        "            copy_async_wait<0>();\n",
        "",
        ("i4",),  # a float's sum that is not a number would be computed anew, and be right
        build="asan",
        late=True,
        seen=WRONG,
    ),
    Fault(
        "missing barrier between two halvings",
        "weight_gradient_narrow",
        "sums.cuh",
        "        __syncthreads();\n    }\n}",
        "    }\n}",
    ),
    Fault(
        "out-of-bounds read of a channel",
        "weight_gradient_narrow",
        "weight_gradient_narrow.cu",
        "c_begin + i < p.C ? widen",
        "true ? widen",
        build="asan",
        seen=OUTSIDE,
    ),
    Fault(
        "out-of-bounds write of a part",
        "weight_gradient",
        "weight_gradient.cu",
        "if (c_begin + row < p.C && column.there) {",
        "if (column.there) {",
        build="asan",
        seen=OUTSIDE,
    ),
    Fault(
        "out-of-bounds write of a gradient",
        "weight_gradient_narrow",
        "sum_splits.cu",
        "if (threadIdx.x < LANES && element < elements)",
        "if (threadIdx.x < LANES)",
        build="asan",
        seen=OUTSIDE,
    ),
]
