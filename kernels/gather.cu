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
#include "outputs.cuh"
#include "gather.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1)
gather(const Element* __restrict__ x, const Element* __restrict__ weight,
       const Element* __restrict__ bias, Element* __restrict__ out, const Params p)
{
    // Which output is mine?  Neighbours among the threads are neighbours in memory.
    const Index number = static_cast<Index>(blockIdx.x) * THREADS + threadIdx.x;
    if (number >= p.outputs) return;
    const Output mine = output_at(number, p);
    const Accumulator sum =
        one_output(x, weight, p, mine.n, mine.group, mine.m, mine.q, mine.r);
    finish(sum, bias ? widen(bias[mine.channel * p.bias_m]) : Accumulator{}, out[mine.out_at]);
}
