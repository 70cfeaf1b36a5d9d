"""The definition: gather, and the headers of all kernels."""

from .mutant import OUTSIDE, Fault, Mutant

MUTANTS = [
    # The equations.
    Mutant(
        "flips the kernel",
        "gather",
        "geometry.cuh",
        "k < axis.kernel_size ? k : -1;",
        "k < axis.kernel_size ? axis.kernel_size - 1 - k : -1;",
    ),
    Mutant(
        "takes one tap too many",
        "gather",
        "geometry.cuh",
        "k < axis.kernel_size ?",
        "k <= axis.kernel_size ?",
    ),
    Mutant(
        "ignores that a tap may lie between the outputs",
        "gather",
        "geometry.cuh",
        "remainder == 0 && k",
        "k",
    ),
    Mutant(
        "ignores the dilation in the shifts",
        "gather",
        "geometry.cuh",
        "return dense ? j : quotient(j * axis.dilation.divisor, axis.stride);",
        "return j;",
    ),
    Mutant(
        "counts dense shifts where taps are far apart",
        "gemm",
        "geometry.cuh",
        "axis.dilation.divisor <= axis.stride.divisor;",
        "true;",
    ),
    Mutant(
        "forgets the phase of a tap",
        "gather",
        "geometry.cuh",
        "shift * axis.stride.divisor + r, axis.dilation",
        "shift * axis.stride.divisor, axis.dilation",
    ),
    Mutant(
        "reads one input beyond the end",
        "gather",
        "geometry.cuh",
        "0 <= i && i < size",
        "0 <= i && i <= size",
    ),
    Mutant(
        "reads one input before the beginning",
        "gather",
        "geometry.cuh",
        "0 <= i && i < size",
        "-1 <= i && i < size",
    ),
    Mutant(
        "drops the first input", "gemm", "geometry.cuh", "0 <= i && i < size", "0 < i && i < size"
    ),
    Mutant(
        "misses the last shift",
        "gather",
        "geometry.cuh",
        "if (++j[a] < p.axis[a].shifts) return true;",
        "if (++j[a] + 1 < p.axis[a].shifts) return true;",
    ),
    Mutant(
        "does not begin the next axis anew", "gather", "geometry.cuh", "        j[a] = 0;\n", ""
    ),
    Mutant(
        "divides inexactly",
        "gather",
        "geometry.cuh",
        "by.multiplier >> by.shift)",
        "(by.multiplier - 1) >> by.shift)",
    ),
    # gather.
    Mutant(
        "gather mixes the items of a batch",
        "gather",
        "gather.cuh",
        "Index x_at = n * p.x_n +",
        "Index x_at =",
    ),
    Mutant("gather reads the first group", "gather", "gather.cuh", "+ group * p.C * p.x_c;", ";"),
    Mutant(
        "gather takes the weight of the first group",
        "gather",
        "gather.cuh",
        "group * p.weight_group + m * p.weight_m",
        "m * p.weight_m",
    ),
    Mutant(
        "gather takes the first output channel's weight",
        "gather",
        "gather.cuh",
        "+ m * p.weight_m;",
        ";",
    ),
    Mutant(
        "gather forgets where the window begins",
        "gather",
        "outputs.cuh",
        "axis.q_begin + divide(o[a] + axis.r_begin",
        "divide(o[a] + axis.r_begin",
    ),
    Mutant(
        "gather forgets the window's phase",
        "gather",
        "outputs.cuh",
        "divide(o[a] + axis.r_begin",
        "divide(o[a]",
    ),
    Mutant(
        "gather misses the last channel", "gather", "gather.cuh", "c < p.C; ++c", "c < p.C - 1; ++c"
    ),
    Mutant(
        "gather multiplies absent inputs",
        "gather",
        "gather.cuh",
        "        if (!there) continue;\n",
        "        if (!there) x_at = weight_at = 0;\n",
    ),
    Mutant(
        "gather takes the bias of the group",
        "gather",
        "gather.cu",
        "bias[mine.channel * p.bias_m]",
        "bias[mine.m * p.bias_m]",
    ),
    Mutant(
        "gather misses the last output",
        "gather",
        "gather.cu",
        "if (number >= p.outputs) return;",
        "if (number + 1 >= p.outputs) return;",
    ),
    Mutant(
        "gather writes as if channels came first",
        "gather",
        "outputs.cuh",
        "output.channel * p.out_m;",
        "output.channel * p.axis[0].out_size.divisor;",
    ),
    # Arithmetic.
    Mutant(
        "truncates to bfloat16",
        "gather",
        "arith.cuh",
        "bits += 0x7fff + (bits >> 16 & 1);",
        "bits += 0;",
        ("bfloat16",),
    ),
    Mutant(
        "rounds ties up to bfloat16",
        "gather",
        "arith.cuh",
        "0x7fff + (bits >> 16 & 1)",
        "0x8000",
        ("bfloat16",),
    ),
    Mutant("forgets to add the bias", "gather", "arith.cuh", "    add(sum, bias);\n", ""),
    Mutant(
        "conjugates",
        "gemm",
        "arith.cuh",
        "multiply_add(sum.re, -a.im, b.im);",
        "multiply_add(sum.re, a.im, b.im);",
        ("c8",),
    ),
    Mutant(
        "forgets half of the imaginary part",
        "gather",
        "arith.cuh",
        "    multiply_add(sum.im, a.im, b.re);\n",
        "",
        ("c8",),
    ),
    Mutant(
        "adds the bias to the real part alone",
        "gather",
        "arith.cuh",
        "    sum.im += v.im;\n",
        "",
        ("c8",),
    ),
]

FAULTS = [
    Fault(
        "out-of-bounds read of an input",
        "gather",
        "gather.cuh",
        "c < p.C; ++c",
        "c <= p.C; ++c",
        build="asan",
        seen=OUTSIDE,
    ),
    Fault(
        "out-of-bounds write of the result",
        "gather",
        "gather.cu",
        "if (number >= p.outputs) return;",
        "if (number > p.outputs) return;",
        build="asan",
        seen=OUTSIDE,
    ),
]
