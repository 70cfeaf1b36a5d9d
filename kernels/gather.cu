// gather: one thread computes one output.  Any geometry, any element type, any strides.
//
//     out[n, m, o] = bias[m] + sum over (shift, c) of x[n, c, q - shift] * weight[c, m, tap]
//
// with q, shift and tap as geometry.cuh defines them; gather.cuh sums.  Nobody else writes my
// output, and I sum in one fixed order, so the same inputs always give the same bits.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"

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

    const Accumulator sum = one_output(x, weight, p, n, group, m, q, r);
    finish(sum, bias ? widen(bias[channel * p.bias_m]) : Accumulator{}, out[out_at]);
}
