// gemm_sum: the second pass of gemm where blocks share sums.
//
//     out[n, m, o] = bias[m] + sum over all splits, in order, of part[split][n, m, o]
//
// One thread computes one output.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "outputs.cuh"
#include "gather.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1)
gemm_sum(const Element* __restrict__ x, const Element* __restrict__ weight,
         const Element* __restrict__ bias, Element* __restrict__ out, Accumulator* workspace,
         const Params p, const Division splits)
{
    const Index number = static_cast<Index>(blockIdx.x) * THREADS + threadIdx.x;
    if (number >= p.outputs) return;
    Accumulator sum = {};
    for (Index split = 0; split < splits.divisor; ++split)
        add(sum, parts_of(split, workspace, p)[number]);
    const Output mine = output_at(number, p);
    // As in gemm: an infinity or NaN may have met the zero of something absent.
    if (!is_finite(sum))
        sum = one_output<1>(x, weight, p, mine.n, mine.group, mine.m, mine.q, mine.r);
    finish(sum, bias ? widen(bias[mine.channel * p.bias_m]) : Accumulator{}, out[mine.out_at]);
}
