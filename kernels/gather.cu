// gather: one thread computes one output.  Any geometry, any element type, any strides.
//
//     out[n, m, o] = bias[m] + sum over (shift, c) of x[n, c, q - shift] * weight[c, m, tap]
//
// with q, shift and tap as geometry.cuh defines them.  Nobody else writes my output, and I sum in
// one fixed order, so the same inputs always give the same bits.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1)
gather(const Element* __restrict__ x, const Element* __restrict__ weight,
       const Element* __restrict__ bias, Element* __restrict__ out, const Params p)
{
    // Which output is mine?  Neighbours among the threads are neighbours in memory.
    Index rest = static_cast<Index>(blockIdx.x) * THREADS + threadIdx.x;
    if (rest >= p.outputs) return;
    Index channel, o[AXES];
    if (OUT_CHANNELS_LAST) rest = divide(rest, p.channels, channel);
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) rest = divide(rest, p.axis[a].out_size, o[a]);
    if (!OUT_CHANNELS_LAST) rest = divide(rest, p.channels, channel);
    const Index n = rest;
    Index m;
    const Index group = divide(channel, p.M, m);

    // Which inputs reach it?
    Index q[AXES], r[AXES];
    Index out_at = n * p.out_n + channel * p.out_m;
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        const Axis& axis = p.axis[a];
        q[a] = axis.q_begin + divide(o[a] + axis.r_begin, axis.stride, r[a]);
        out_at += o[a] * axis.out_stride;
    }

    // Gather them, skipping what is absent: a zero in its place would turn infinity into NaN.
    Accumulator sum = {};
    Index j[AXES] = {};
    do {
        Index x_at = n * p.x_n + group * p.C * p.x_c;
        Index weight_at = group * p.C * p.weight_c + m * p.weight_m;
        bool there = true;
#pragma unroll
        for (int a = 0; a < AXES; ++a) {
            const Axis& axis = p.axis[a];
            const Index shift = shift_of(axis, j[a]);
            const Index i = q[a] - shift;
            const Index k = tap_of(axis, shift, r[a]);
            there = there && inside(i, axis.in_size) && k >= 0;
            x_at += i * axis.x_stride;
            weight_at += k * axis.weight_stride;
        }
        if (!there) continue;
        for (Index c = 0; c < p.C; ++c)
            multiply_add(sum, widen(x[x_at + c * p.x_c]),
                         widen(weight[weight_at + c * p.weight_c]));
    } while (advance(j, p));

    finish(sum, bias ? widen(bias[channel * p.bias_m]) : Accumulator{}, out[out_at]);
}
