// Which input reaches which output, for every kernel.
//
// Along each axis, tap k of the kernel carries input i to output
//
//     o = i * stride + k * dilation - pad_begin.
//
// Divide what the output window and the taps are made of by the stride, with remainder:
//
//     o + pad_begin = q * stride + r          r is the phase of the output
//     k * dilation  = shift * stride + r      the same r, or tap k does not reach this output
//
// and the equation becomes i = q - shift.  All phases with the same q read the same inputs; they
// differ only in which tap lies at a shift.  An output without one gets the bias and nothing else.
//
// The adjoint (ADJOINT) goes the other way, and needs no division.  It is a convolution with a
// stride: its output q reads what lies at
//
//     q * in_stride + k * dilation - pad_begin
//
// for every tap k.  It has one phase, its outputs lie side by side (stride is 1), and "shift" j
// means tap j.  For the kernels x is always what is read and out what is written, C what is summed.
#pragma once

// Division by a number that is known before the launch.  For 32 bits it is a multiplication:
// with shift = 31 + ceil(log2(divisor)) and multiplier = ceil(2^shift / divisor), the quotient is
// exact for every 0 <= n < 2^31.
struct Division {
    Index divisor;
    UnsignedIndex multiplier;
    Index shift;
};

struct Axis {
    Index in_size, kernel_size;
    Division out_size, stride, dilation;
    Index q_begin, r_begin;  // pad_begin = q_begin * stride + r_begin
    Division q_size;         // the outputs have q in [q_begin, q_begin + q_size)
    Division phases;         // how many phases have an output: min(stride, out_size)
    Index shifts;            // how many different shifts the taps have
    Index in_stride, pad_begin;  // of the adjoint
    Index x_stride, weight_stride, out_stride;
};

// Sizes count elements, strides too.  C and M are those of one group.
struct Params {
    Division M;
    Division channels;       // of the result: groups * M
    Index C;
    Index outputs;           // elements of the result
    Index rows;              // of the matrix product: N * prod(q_size)
    Division phase_columns;  // of the matrix product: M, or more so that no block mixes phases
    Division row_blocks, column_blocks;
    Division row_runs;       // of kernels of runs: how many in a row of the result
    Index group_runs;        // and in one channel, of all items
    Index x_n, x_c, weight_group, weight_c, weight_m, bias_m, out_n, out_m;  // strides
    Axis axis[AXES];
};

__device__ __forceinline__ Index quotient(Index n, const Division& by)
{
    if constexpr (sizeof(Index) == 8)
        return n / by.divisor;
    else
        return static_cast<Index>(static_cast<unsigned long long>(n) * by.multiplier >> by.shift);
}

// Splits n into quotient (returned) and remainder.
__device__ __forceinline__ Index divide(Index n, const Division& by, Index& remainder)
{
    const Index q = quotient(n, by);
    remainder = n - q * by.divisor;
    return q;
}

// The shifts of all taps, in ascending order: each whole number up to the last tap's if the taps
// are at most one stride apart, otherwise one for each tap.
__device__ __forceinline__ Index shift_of(const Axis& axis, Index j)
{
    const bool dense = axis.dilation.divisor <= axis.stride.divisor;
    return dense ? j : quotient(j * axis.dilation.divisor, axis.stride);
}

// The tap of phase r at a shift, or -1 if there is none.
__device__ __forceinline__ Index tap_of(const Axis& axis, Index shift, Index r)
{
    Index remainder;
    const Index k = divide(shift * axis.stride.divisor + r, axis.dilation, remainder);
    return remainder == 0 && k < axis.kernel_size ? k : -1;
}

// Which element along an axis of x the outputs at q read at the j-th shift.
__device__ __forceinline__ Index element_at(const Axis& axis, Index q, Index j)
{
    if constexpr (ADJOINT)
        return q * axis.in_stride + j * axis.dilation.divisor - axis.pad_begin;
    else
        return q - shift_of(axis, j);
}

// With which tap outputs in phase r multiply what they read at the j-th shift; -1 for none.
__device__ __forceinline__ Index tap_at(const Axis& axis, Index r, Index j)
{
    if constexpr (ADJOINT)
        return j;
    else
        return tap_of(axis, shift_of(axis, j), r);
}

__device__ __forceinline__ bool inside(Index i, Index size)
{
    return 0 <= i && i < size;
}

// Steps through all combinations of shifts, the last axis fastest; false after the last one.
__device__ __forceinline__ bool advance(Index (&j)[AXES], const Params& p)
{
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) {
        if (++j[a] < p.axis[a].shifts) return true;
        j[a] = 0;
    }
    return false;
}
