"""Mistakes that one can make in the kernels; the tests must notice each of them.

`MUTANTS` change the answer.  `FAULTS` are mistakes that a right answer can hide, and say which
build of the stand-in, with which arrival of asynchronous copies, has to notice.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One change of one file of ``kernels/``."""

    why: str
    kernel: str
    file: str
    old: str
    new: str
    dtypes: tuple[str, ...] = ("f4", "f2")

    def __str__(self):
        return self.why


@dataclass(frozen=True)
class Fault(Mutant):
    """A mistake for a sanitizer to find."""

    build: str = "tsan"
    late: bool = False
    seen: str = "ThreadSanitizer: data race"
    slow: bool = False


OUTSIDE = "AddressSanitizer: heap-buffer-overflow"
WRONG = "Arrays are not equal"
HALVES = ("f2", "bfloat16")

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
        "gather.cu",
        "axis.q_begin + divide(o[a] + axis.r_begin",
        "divide(o[a] + axis.r_begin",
    ),
    Mutant(
        "gather forgets the window's phase",
        "gather",
        "gather.cu",
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
        "bias[channel * p.bias_m]",
        "bias[m * p.bias_m]",
    ),
    Mutant(
        "gather misses the last output",
        "gather",
        "gather.cu",
        "if (rest >= p.outputs) return;",
        "if (rest + 1 >= p.outputs) return;",
    ),
    Mutant(
        "gather writes as if channels came first",
        "gather",
        "gather.cu",
        "channel * p.out_m;",
        "channel * p.axis[0].out_size.divisor;",
    ),
    # gemm.
    Mutant("gemm mixes the items of a batch", "gemm", "gemm.cu", "    at += row.n * p.x_n;\n", ""),
    Mutant(
        "gemm takes the first group's input",
        "gemm",
        "gemm.cu",
        "group_x = x + group * p.C * p.x_c;",
        "group_x = x;",
    ),
    Mutant(
        "gemm takes the first group's weight",
        "gemm",
        "gemm.cu",
        "group_weight = weight + group * p.C * p.weight_c;",
        "group_weight = weight;",
    ),
    Mutant(
        "gemm forgets where the window begins",
        "gemm",
        "gemm.cu",
        "        row.q[a] += p.axis[a].q_begin;\n",
        "",
    ),
    Mutant(
        "gemm stores the phases in order, wherever the window begins",
        "gemm",
        "gemm.cu",
        "phase + p.axis[a].r_begin, p.axis[a].stride",
        "phase, p.axis[a].stride",
    ),
    Mutant(
        "gemm counts a phase's filling as a channel",
        "gemm",
        "gemm.cu",
        "index == 0 && m < p.M.divisor",
        "index == 0 && m <= p.M.divisor",
    ),
    Mutant(
        "gemm skips the first tile's bias",
        "gemm",
        "gemm.cu",
        "added[j] = bias && exists[j]",
        "added[j] = bias && exists[j] && column_block",
    ),
    Mutant(
        "gemm takes the bias of the group",
        "gemm",
        "gemm.cu",
        "widen(bias[channel * p.bias_m])",
        "widen(bias[column.m * p.bias_m])",
    ),
    Mutant(
        "gemm lets infinity meet the zeros of what is absent",
        "gemm",
        "gemm.cu",
        "if (there && is_finite(sum[i][j]))",
        "if (there)",
    ),
    Mutant(
        "gemm computes the sums of another column anew",
        "gemm",
        "gemm.cu",
        "mine.column(e % THREAD_COLUMNS)",
        "mine.column(e / THREAD_COLUMNS % THREAD_COLUMNS)",
    ),
    Mutant(
        "gemm visits one step too few",
        "gemm",
        "gemm.cu",
        "if (step.c < p.C) return true;",
        "if (step.c + DEPTH < p.C) return true;",
    ),
    Mutant(
        "gemm does not begin the channels of a new shift at 0",
        "gemm",
        "gemm.cu",
        "        step.c = 0;\n        return advance",
        "        return advance",
    ),
    Mutant(
        "gemm skips a shift that its phase has",
        "gemm",
        "gemm.cu",
        "return advance(step.j, p) && seek(step);",
        "return advance(step.j, p) && advance(step.j, p) && seek(step);",
    ),
    Mutant(
        "gemm takes blocks that mix phases for blocks of one",
        "gemm",
        "gemm.cu",
        "        if (p.phase_columns.divisor % COLUMNS != 0) return true;\n",
        "",
    ),
    Mutant(
        "gemm multiplies the tile that is on its way",
        "gemm",
        "gemm.cu",
        "multiply(shared.stage[now], mine",
        "multiply(shared.stage[now ^ more], mine",
    ),
    Mutant(
        "gemm stores every row in phase 0",
        "gemm",
        "gemm.cu",
        "phase[j][a] = column.r[a] - p.axis[a].r_begin;",
        "phase[j][a] = -p.axis[a].r_begin;",
    ),
    Mutant(
        "gemm stores rows from q instead of q - q_begin",
        "gemm",
        "gemm.cu",
        "(row.q[a] - p.axis[a].q_begin) * p.axis",
        "row.q[a] * p.axis",
    ),
    Mutant(
        "gemm exchanges two channels of a step",
        "gemm",
        "gemm.cu",
        "stage.weight[c][column], weight[load]);",
        "stage.weight[c ^ 1][column], weight[load]);",
    ),
    Mutant(
        "gemm transposes plain loads",
        "gemm",
        "gemm.cu",
        "stage.x[x_c(element(load))][x_row(element(load))] = x[load];",
        "stage.x[x_c(element(load)) ^ 1][x_row(element(load))] = x[load];",
    ),
    # depthwise.
    Mutant(
        "depthwise flips the window",
        "depthwise",
        "depthwise.cu",
        "reached / DILATION_X < KERNEL_X ? reached / DILATION_X : -1;",
        "reached / DILATION_X < KERNEL_X ? KERNEL_X - 1 - reached / DILATION_X : -1;",
    ),
    Mutant(
        "depthwise forgets the phase that a run begins with",
        "depthwise",
        "depthwise.cu",
        "return (FIRST_PHASE + e) / STRIDE_X;",
        "return e / STRIDE_X;",
    ),
    Mutant(
        "depthwise takes the first channels of a group",
        "depthwise",
        "depthwise.cu",
        "(first_m + m) * p.weight_m;",
        "m * p.weight_m;",
    ),
    Mutant(
        "depthwise takes the first group's weight",
        "depthwise",
        "depthwise.cu",
        "group * p.weight_group + ",
        "",
    ),
    Mutant(
        "depthwise takes the phase of a row from the wrong place",
        "depthwise",
        "depthwise.cu",
        "static_cast<int>((mine.y + axis.r_begin) % STRIDE_Y);",
        "static_cast<int>(mine.y % STRIDE_Y);",
    ),
    Mutant(
        "depthwise loads vectors where an axis ends within one",
        "depthwise",
        "depthwise.cu",
        "        && length % size == 0;",
        "        ;",
    ),
    Mutant(
        "depthwise takes the first element of a vector for the first input",
        "depthwise",
        "depthwise.cu",
        "const Index i = first - X_LEAD + v * X_VECTOR;",
        "const Index i = first + v * X_VECTOR;",
    ),
    Mutant(
        "depthwise stores rows that do not exist",
        "depthwise",
        "depthwise.cu",
        "row_exists(phase) ? count : 0};",
        "count};",
    ),
    Mutant(
        "depthwise keeps what infinity has spoilt",
        "depthwise",
        "depthwise.cu",
        "if (all_finite || whole) continue;",
        "continue;",
    ),
    Mutant(
        "depthwise forgets that a row of inputs may be absent",
        "depthwise",
        "depthwise.cu",
        "                    whole = whole && there[row];\n",
        "",
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
    # Hopper.
    Mutant(
        "hopper takes the first group's input",
        "hopper",
        "hopper.cu",
        "tile.group * p.C + steps.c",
        "steps.c",
        HALVES,
    ),
    Mutant(
        "hopper forgets the shift",
        "hopper",
        "hopper.cu",
        "element_at(p.axis[a], tile.q[a], steps.j[a])",
        "tile.q[a]",
        HALVES,
    ),
    Mutant(
        "hopper takes taps of the last axis alone",
        "hopper",
        "hopper.cu",
        "tap = tap * p.axis[a].kernel_size + steps.tap(a);",
        "tap = steps.tap(a);",
        HALVES,
    ),
    Mutant(
        "hopper forgets where a phase begins",
        "hopper",
        "hopper.cu",
        "tile.r[a] < axis.r_begin ? 1 : 0",
        "0",
        HALVES,
    ),
    Mutant(
        "hopper mixes up the rows of a thread",
        "hopper",
        "hopper.cu",
        "lane / 4 + 8 * half, p, boxes",
        "lane / 4 + 8 * (1 - half), p, boxes",
        HALVES,
    ),
    Mutant(
        "hopper multiplies the first 16 channels of a step alone",
        "hopper",
        "hopper.cu",
        "descriptor(&stage.x[group * (ROWS / 2)][c], 0)",
        "descriptor(&stage.x[group * (ROWS / 2)][0], 0)",
        HALVES,
    ),
    Mutant(
        "hopper lets infinity meet the zeros of what is absent",
        "hopper",
        "hopper.cu",
        "if (!is_finite(one)) astray |= 1ull << (2 * pair + e);",
        "",
        HALVES,
    ),
]

FAULTS = [
    Fault(
        "missing barrier at the end of a step",
        "gemm",
        "gemm.cu",
        "        __syncthreads();\n    }\n\n    // The pixel shuffle",
        "    }\n\n    // The pixel shuffle",
    ),
    Fault(
        "missing barrier before the first step",
        "gemm",
        "gemm.cu",
        "    __syncthreads();\n    for (int now = 0;",
        "    for (int now = 0;",
    ),
    Fault(
        "missing barrier after the tables",
        "gemm",
        "gemm.cu",
        "    __syncthreads();\n\n    const Steps",
        "    const Steps",
    ),
    Fault(
        "early read: the step is multiplied before the barrier that ends its loading",
        "gemm",
        "gemm.cu",
        "        if (more) loader.end(shared.stage[now ^ 1]);\n        __syncthreads();\n",
        "        __syncthreads();\n        if (more) loader.end(shared.stage[now ^ 1]);\n",
        build="asan",
        late=True,
        seen=WRONG,
    ),
    Fault(
        "early write: the next step overwrites the one that is multiplied",
        "gemm",
        "gemm.cu",
        "if (more) loader.begin(group_x, group_weight, ahead, p, shared, shared.stage[now ^ 1]);",
        "if (more) loader.begin(group_x, group_weight, ahead, p, shared, shared.stage[now]);",
    ),
    Fault(
        "missing wait",
        "gemm",
        "gemm.cu",
        "            copy_async_wait<0>();\n",
        "",
        build="asan",
        late=True,
        seen=WRONG,
    ),
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
        "out-of-bounds asynchronous copy",
        "gemm",
        "gemm.cu",
        "const bool there = input_at(shared.row[row], step, p, at) && step.c + c < p.C;",
        "const bool there = input_at(shared.row[row], step, p, at);",
        build="asan",
        seen=OUTSIDE,
    ),
    Fault(
        "out-of-bounds write of the result",
        "gather",
        "gather.cu",
        "if (rest >= p.outputs) return;",
        "if (rest > p.outputs) return;",
        build="asan",
        seen=OUTSIDE,
    ),
    Fault(
        "more shared memory than was asked for",
        "gemm",
        "gemm.cu",
        "    Row row[ROWS];\n    Column column[COLUMNS];\n};\n"
        'static_assert(sizeof(Shared) == SHARED_BYTES, "Python launches with SHARED_BYTES");',
        "    Row row[ROWS + 8];\n    Column column[COLUMNS];\n};",
        build="asan",
        seen=OUTSIDE,
    ),
    Fault(
        "missing barrier after the mbarriers are made",
        "hopper",
        "hopper.cu",
        "    __syncthreads();\n\n    // The producer needs",
        "\n    // The producer needs",
        HALVES,
        slow=True,
        seen="RuntimeError: a barrier that nobody has initialised",
    ),
    Fault(
        "mbarriers that the copy engine is not shown",
        "hopper",
        "hopper.cu",
        "        mbarrier_init_fence();\n",
        "",
        HALVES,
        build="asan",
        slow=True,
        seen="RuntimeError: the copy engine has not been shown a barrier",
    ),
    Fault(
        "early read: a stage is multiplied before its bytes are there",
        "hopper",
        "hopper.cu",
        "            mbarrier_wait(shared.full[ring.stage], ring.parity);\n",
        "",
        HALVES,
    ),
    Fault(
        "early read, late copies",
        "hopper",
        "hopper.cu",
        "            mbarrier_wait(shared.full[ring.stage], ring.parity);\n",
        "",
        HALVES,
        build="asan",
        late=True,
        slow=True,
        seen=WRONG,
    ),
    Fault(
        "early write: a stage is filled before it has been multiplied",
        "hopper",
        "hopper.cu",
        "            mbarrier_wait(shared.empty[ring.stage], ring.parity ^ 1);\n",
        "",
        HALVES,
        slow=True,
    ),
    Fault(
        "a stage is given back before its products are made",
        "hopper",
        "hopper.cu",
        "            multiply(shared.stage[ring.stage], group, sum);\n"
        "            if (threadIdx.x % 32 == 0) mbarrier_arrive(shared.empty[ring.stage]);\n",
        "            if (threadIdx.x % 32 == 0) mbarrier_arrive(shared.empty[ring.stage]);\n"
        "            multiply(shared.stage[ring.stage], group, sum);\n",
        HALVES,
        slow=True,
    ),
    Fault(
        "missing wait for the products",
        "hopper",
        "hopper.cu",
        "    wgmma_wait();\n",
        "",
        HALVES,
        build="asan",
        late=True,
        seen=WRONG,
    ),
    Fault(
        "products without a fence",
        "hopper",
        "hopper.cu",
        "    wgmma_fence();\n",
        "",
        HALVES,
        build="asan",
        slow=True,
        seen="RuntimeError: products without a fence before them",
    ),
    Fault(
        "bytes that nobody announces",
        "hopper",
        "hopper.cu",
        "mbarrier_arrive_expect_tx(shared.full[ring.stage], bytes);",
        "mbarrier_arrive(shared.full[ring.stage]);",
        HALVES,
        build="asan",
        slow=True,
        seen="RuntimeError: some threads of a block never came to a barrier of the others",
    ),
    Fault(
        "fewer bytes announced than come",
        "hopper",
        "hopper.cu",
        "static_cast<int>(boxes.rows) * sizeof(shared.stage[0].x[0])",
        "ROWS * sizeof(shared.stage[0].x[0])",
        HALVES,
        build="asan",
        slow=True,
        seen="RuntimeError: some threads of a block never came to a barrier of the others",
    ),
    Fault(
        "a ring that never comes round",
        "hopper",
        "hopper.cu",
        "        parity ^= 1;\n",
        "",
        HALVES,
        build="asan",
        slow=True,
        seen="RuntimeError: some threads of a block never came to a barrier of the others",
    ),
    Fault(
        "depthwise: missing barrier after the weights",
        "depthwise",
        "depthwise.cu",
        "const bool all_finite = !__syncthreads_or(!finite);",
        "const bool all_finite = finite;",
    ),
    Fault(
        "depthwise: missing barrier before a row is stored",
        "depthwise",
        "depthwise.cu",
        "            __syncthreads();\n            if (out_vectors)",
        "            if (out_vectors)",
        seen="ThreadSanitizer",  # where to write was not there yet
    ),
    Fault(
        "depthwise: missing barrier at the end of a tile",
        "depthwise",
        "depthwise.cu",
        "        __syncthreads();\n\n        // A zero",
        "\n        // A zero",
    ),
    Fault(
        "depthwise: out-of-bounds read of a vector",
        "depthwise",
        "depthwise.cu",
        "if (there && inside(i, size)) some[v]",
        "if (there) some[v]",
        build="asan",
        seen=OUTSIDE,
    ),
    Fault(
        "depthwise: out-of-bounds write beyond the end of a row",
        "depthwise",
        "depthwise.cu",
        "left < RUN ? left : RUN;",
        "RUN;",
        build="asan",
        seen=OUTSIDE,
    ),
]
