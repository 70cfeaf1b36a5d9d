// What the kernels for few output channels share: their weights, some channels at a time, and parts of
// a window that is too long for registers.
//
// A block walks over the channels, DEPTH of them with their weights in shared memory at a time.  So
// sums run over blocks of channels, then shifts, and the bits are not gather's.  A window too long for
// registers is a sum of PARTS_X windows of KERNEL_X taps, each at other inputs.
#pragma once

static_assert(CHANNELS == 1, "inputs of one channel in registers");

constexpr int PART_ROWS = KERNEL_Z * KERNEL_Y;
constexpr int PART_STEP = KERNEL_X * DILATION_X / PHASES_X;  // inputs from one part to the next
static_assert(PARTS_X == 1 || PART_STEP * PHASES_X == KERNEL_X * DILATION_X, "the same phases");

// Where the inputs of a part begin, along the last axis.
__device__ __forceinline__ Index first_of(int part, const Mine& mine)
{
    return mine.first + (ADJOINT ? part : -part) * PART_STEP;
}

// Which channels are mine, and which runs?  Neighbouring blocks share their inputs.
struct Task {
    Index group, first_m;
    Mine mine;
};

__device__ __forceinline__ Task my_task(const Params& p)
{
    Index column_block, block;
    const Index rest = divide(static_cast<Index>(blockIdx.x), p.column_blocks, column_block);
    const Index group = divide(rest, p.row_blocks, block);
    return {group, column_block * OUT_CHANNELS, run_at(block * THREADS + threadIdx.x, p)};
}

using WeightRow = WeightVector[WEIGHT_VECTORS];
using Weights = WeightRow[DEPTH][PARTS_X * PART_ROWS];

// Brings in the weights of `depth` channels, from c on, in the order in which `multiply` reads them.
__device__ __forceinline__ void fetch_weights(const Element* __restrict__ weight, Index group,
                                              Index first_m, Index c, int depth, const Params& p,
                                              Weights& to)
{
    const Axis& last = p.axis[AXES - 1];
#pragma unroll 1
    for (int i = threadIdx.x; i < PARTS_X * PART_ROWS * WEIGHTS; i += THREADS) {
        const int at = i % WEIGHTS, row = i / WEIGHTS;
        const int first_tap = row / PART_ROWS * KERNEL_X;
        Index from = group * p.weight_group + first_m * p.weight_m + c * p.weight_c
                   + first_tap * last.weight_stride;
#pragma unroll 4
        for (int d = 0; d < depth; ++d, from += p.weight_c)
            to[d][row][at / AT_ONCE].of[at % AT_ONCE] =
                fetch_weight(weight, from, row % PART_ROWS, at, last.kernel_size - first_tap, p);
    }
}

// Adds the products of a row of inputs of one channel, in all phases of a thread.
__device__ __forceinline__ void multiply(const Accumulator (&inputs)[CHANNELS][INPUTS],
                                         const WeightRow* weight, int jy, int ky,
                                         Accumulator (&sum)[PHASES_Y][OUT_CHANNELS][RUN])
{
#pragma unroll
    for (int phase = 0; phase < PHASES_Y; ++phase) {
        const int k = PHASES_Y > 1 ? WindowY::tap(jy, phase) : ky;
        if (PHASES_Y == 1 || WindowY::EVERY_TAP || k >= 0) multiply(inputs, weight[k], sum[phase]);
    }
}

// A zero in the place of something absent does no harm, but times infinity it is NaN: may it have?
__device__ __forceinline__ bool is_spoilt(const Accumulator (&sum)[PHASES_Y][OUT_CHANNELS][RUN],
                                          const Mine& mine, const Axis& last)
{
    bool spoilt = false;
    if (PARTS_X > 1 || mine.first < 0 || mine.first + INPUTS > last.in_size) {
#pragma unroll
        for (int phase = 0; phase < PHASES_Y; ++phase)
#pragma unroll
            for (int m = 0; m < OUT_CHANNELS; ++m)
#pragma unroll
                for (int e = 0; e < RUN; ++e) spoilt = spoilt || !is_finite(sum[phase][m][e]);
    }
    return spoilt;
}
