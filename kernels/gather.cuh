// The definition's sum for one output, for every kernel.
#pragma once

// Shifts ascending, then channels.  What is absent is skipped: a zero in its place would turn
// infinity into NaN.  Tiled kernels do put zeros there, so they come here with each sum that is
// not finite, and store what the definition says instead.  Those that are short of registers hold
// UNROLL at 1.
template <int UNROLL = 4>
__device__ __forceinline__ Accumulator one_output(const Element* x, const Element* weight,
                                                  const Params& p, Index n, Index group, Index m,
                                                  const Index (&q)[AXES], const Index (&r)[AXES])
{
    Accumulator sum = {};
    Index j[AXES] = {};
    do {
        Index x_at = n * p.x_n + group * p.C * p.x_c;
        Index weight_at = group * p.weight_group + m * p.weight_m;
        bool there = true;
#pragma unroll
        for (int a = 0; a < AXES; ++a) {
            const Axis& axis = p.axis[a];
            const Index i = element_at(axis, q[a], j[a]);
            const Index k = tap_at(axis, r[a], j[a]);
            there = there && inside(i, axis.in_size) && k >= 0;
            x_at += i * axis.x_stride;
            weight_at += k * axis.weight_stride;
        }
        if (!there) continue;
#pragma unroll UNROLL
        for (Index c = 0; c < p.C; ++c)
            multiply_add(sum, widen(x[x_at + c * p.x_c]),
                         widen(weight[weight_at + c * p.weight_c]));
    } while (advance(j, p));
    return sum;
}
