// weight_gradient_narrow: the weight gradient of few channels, depthwise for one.
//
//     grad_weight[c, m, k] = sum over (n, i) of x[n, c, i] * y[n, m, i*stride + k*dilation - pad_begin]
//
// A block sums ROWS channels c and COLUMNS pairs (tap, m) of one group over one split.  Each
// thread keeps all of these sums in registers and takes every so many positions: neighbours among
// the threads read neighbours in memory.  At the end the threads' sums are added pairwise.
//
// Where channels are nearest in memory, CHANNEL_LANES neighbouring threads take as many groups.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "weight_gradient.cuh"

constexpr int ELEMENTS = ROWS * COLUMNS;

struct Shared {
    alignas(16) Accumulator sums[ELEMENTS * THREADS];
    Column column[COLUMNS];
};
static_assert((sizeof(Shared) + 15) / 16 * 16 == SHARED_BYTES, "Python launches with SHARED_BYTES");

extern "C" __global__ void __launch_bounds__(THREADS, 1)
weight_gradient_narrow(const Element* __restrict__ x, const Element* __restrict__ y, Element*,
                       Element*, Accumulator* __restrict__ workspace, const GradientParams p)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());
    if (static_cast<Index>(blockIdx.x) >= p.weight_blocks)
        return sum_bias(y, workspace, blockIdx.x - p.weight_blocks, p, shared.sums);

    // Which sums are mine, over which positions?
    Index column_block, row_block, split;
    Index rest = divide(static_cast<Index>(blockIdx.x), p.column_blocks, column_block);
    rest = divide(rest, p.row_blocks, row_block);
    rest = divide(rest, p.splits, split);
    const Index group_begin = rest * CHANNEL_LANES, c_begin = row_block * ROWS;
    const Index group = group_begin + threadIdx.x % CHANNEL_LANES;
    const Index first = split * p.split_positions;
    const Index last = min_of(first + p.split_positions, p.positions);
    for (int j = threadIdx.x; j < COLUMNS; j += THREADS)
        shared.column[j] = column_at(column_block * COLUMNS + j, p);
    __syncthreads();

    Accumulator sum[ELEMENTS] = {};
    if (group < p.groups) {
        x += (group * p.C + c_begin) * p.x_c;
        y += group * p.M.divisor * p.y_m;
        for (Index index = first + threadIdx.x / CHANNEL_LANES; index < last;
             index += THREADS / CHANNEL_LANES) {
            const Position position = position_at(index, p);
            Accumulator mine[ROWS];
#pragma unroll
            for (int i = 0; i < ROWS; ++i)
                mine[i] = c_begin + i < p.C ? widen(x[position.x_at + i * p.x_c]) : Accumulator{};
#pragma unroll
            for (int j = 0; j < COLUMNS; ++j) {
                const Column& column = shared.column[j];
                if (!meets(position, column, p)) continue;
                const Accumulator other = widen(y[position.y_at + column.y_at]);
#pragma unroll
                for (int i = 0; i < ROWS; ++i) multiply_add(sum[i * COLUMNS + j], mine[i], other);
            }
        }
    }

    add_up<ELEMENTS, CHANNEL_LANES>(sum, shared.sums);
    Accumulator* const parts = weight_parts(workspace, split, p);
    for (int e = threadIdx.x; e < ELEMENTS * CHANNEL_LANES; e += THREADS) {
        const int lane = e % CHANNEL_LANES, element = e / CHANNEL_LANES;
        const Column& column = shared.column[element % COLUMNS];
        const Index c = c_begin + element / COLUMNS;
        if (group_begin + lane < p.groups && c < p.C && column.there)
            parts[((group_begin + lane) * p.C + c) * p.columns + column.to] =
                shared.sums[element * THREADS + lane];
    }
}
