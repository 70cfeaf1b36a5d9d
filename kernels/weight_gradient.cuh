// The gradients of weight and bias: sums over the batch and all positions.
//
//     grad_weight[c, m, k] = sum over (n, i) of x[n, c, i] * y[n, m, i*stride + k*dilation - pad_begin]
//     grad_bias[m]         = sum over (n, o) of y[n, m, o]
//
// where y is the gradient of the output.  The positions are cut into splits of one length; each
// block sums one split, and sum_splits.cu adds what they found.  How long a split is follows from
// the geometry, and who adds what to what from its place alone: the same bits, every time.
//
// A sum of a million floats, one after another, is good to a few digits.  So a thread adds 256 terms
// at most to one sum, and then that to another.
#pragma once
#include "sums.cuh"

// Sizes count elements, strides too.
struct GradientAxis {
    Division in_size, kernel_size, out_size;
    Index stride, dilation, pad_begin;
    Index x_stride, y_stride;
};

// C and M are those of one group, columns = taps * M.
struct GradientParams {
    Index groups, C;
    Division M;
    Index taps, columns;
    Index positions, split_positions;  // N * prod(in_size), and how many of them one split has
    Division splits, row_blocks, column_blocks;
    Index weight_blocks, weight_sums;  // blocks of the first pass, and of the second, from which
                                       // on they are for the bias
    Index weight_elements;             // 0 if nobody wants its gradient
    Index channels;                    // of y: groups * M
    Index outputs, bias_positions;     // N * prod(out_size), and how many of them one split has
    Division bias_splits;
    Index x_n, x_c, y_n, y_m;          // strides
    GradientAxis axis[AXES];
};

// Where an input lies in x, and where a tap at 0 would carry it to.
struct Position {
    Index there;  // 0 beyond the last
    Index x_at, y_at, o[AXES];
};

__device__ __forceinline__ Position position_at(Index index, const GradientParams& p)
{
    Position position = {1, 0, 0, {}};
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) {
        const GradientAxis& axis = p.axis[a];
        Index i;
        index = divide(index, axis.in_size, i);
        position.o[a] = i * axis.stride;
        position.x_at += i * axis.x_stride;
        position.y_at += position.o[a] * axis.y_stride;
    }
    position.x_at += index * p.x_n;
    position.y_at += index * p.y_n;
    return position;
}

// A tap and an output channel of the group: how much further on in y, and where in the result.
struct Column {
    Index there;  // 0 beyond the last
    Index y_at, o[AXES], to;
};

__device__ __forceinline__ Column column_at(Index index, const GradientParams& p)
{
    if (index >= p.columns) return {};
    Column column = {1, 0, {}, 0};
    Index m;
    Index tap = divide(index, p.M, m);
    column.to = m * p.taps + tap;
    column.y_at = m * p.y_m;
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) {
        const GradientAxis& axis = p.axis[a];
        Index k;
        tap = divide(tap, axis.kernel_size, k);
        column.o[a] = k * axis.dilation - axis.pad_begin;
        column.y_at += column.o[a] * axis.y_stride;
    }
    return column;
}

// Does this tap carry this input to an output that is there?
__device__ __forceinline__ bool meets(const Position& position, const Column& column,
                                      const GradientParams& p)
{
    bool there = position.there && column.there;
#pragma unroll
    for (int a = 0; a < AXES; ++a)
        there = there && inside(position.o[a] + column.o[a], p.axis[a].out_size.divisor);
    return there;
}

// The workspace holds one array like the weight for each of its splits, then those of the bias.
__device__ __forceinline__ Accumulator* weight_parts(Accumulator* workspace, Index split,
                                                     const GradientParams& p)
{
    return workspace + static_cast<unsigned long long>(split) * p.weight_elements;
}
__device__ __forceinline__ Accumulator* bias_parts(Accumulator* workspace, Index split,
                                                   const GradientParams& p)
{
    return weight_parts(workspace, p.splits.divisor, p)
           + static_cast<unsigned long long>(split) * p.channels;
}

// Sums one split of the bias gradient.
__device__ __forceinline__ void sum_bias(const Element* y, Accumulator* workspace, Index block,
                                         const GradientParams& p, Accumulator* shared)
{
    Index split;
    const Index channel_block = divide(block, p.bias_splits, split);
    const Index channel = channel_block * CHANNEL_LANES + threadIdx.x % CHANNEL_LANES;
    const Index first = split * p.bias_positions;
    const Index last = min_of(first + p.bias_positions, p.outputs);
    Accumulator sum[1] = {};
    if (channel < p.channels) {
        for (Index index = first + threadIdx.x / CHANNEL_LANES; index < last;
             index += THREADS / CHANNEL_LANES) {
            Index n = index, at = channel * p.y_m;
#pragma unroll
            for (int a = AXES - 1; a >= 0; --a) {
                Index o;
                n = divide(n, p.axis[a].out_size, o);
                at += o * p.axis[a].y_stride;
            }
            add(sum[0], widen(y[n * p.y_n + at]));
        }
    }
    add_up<1, CHANNEL_LANES>(sum, shared);
    if (threadIdx.x < CHANNEL_LANES && channel < p.channels)
        bias_parts(workspace, split, p)[channel] = shared[threadIdx.x];
}
