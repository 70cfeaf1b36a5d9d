// sum_splits: adds up the parts of the gradients of weight and bias, and rounds once.
//
//     grad[e] = sum over all splits of part[split][e]
//
// A block has LANES elements.  THREADS / LANES threads share one, each takes every so many splits,
// and their sums are added pairwise.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "weight_gradient.cuh"

constexpr int LANES = CHANNEL_LANES;
static_assert(THREADS * sizeof(Accumulator) == SHARED_BYTES, "Python launches with SHARED_BYTES");

extern "C" __global__ void __launch_bounds__(THREADS, 1)
sum_splits(const Element*, const Element*, Element* __restrict__ grad_weight,
           Element* __restrict__ grad_bias, Accumulator* __restrict__ workspace,
           const GradientParams p)
{
    Accumulator* shared = static_cast<Accumulator*>(dynamic_shared());

    // Which gradient, and which of its elements?
    const bool of_bias = static_cast<Index>(blockIdx.x) >= p.weight_sums;
    const Index block = of_bias ? blockIdx.x - p.weight_sums : blockIdx.x;
    const Index elements = of_bias ? p.channels : p.weight_elements;
    const Index splits = of_bias ? p.bias_splits.divisor : p.splits.divisor;
    const Index element = block * LANES + threadIdx.x % LANES;

    Accumulator sum[1] = {};
    if (element < elements) {
        for (Index split = threadIdx.x / LANES; split < splits; split += THREADS / LANES)
            add(sum[0], (of_bias ? bias_parts(workspace, split, p)
                                 : weight_parts(workspace, split, p))[element]);
    }
    add_up<1, LANES>(sum, shared);
    if (threadIdx.x < LANES && element < elements)
        narrow(shared[threadIdx.x], (of_bias ? grad_bias : grad_weight)[element]);
}
