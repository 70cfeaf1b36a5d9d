// gemm: the whole transposed convolution as one matrix product on FMA units (gemm.cuh).
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"
#include "gemm.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
gemm(const Element* __restrict__ x, const Element* __restrict__ weight,
     const Element* __restrict__ bias, Element* __restrict__ out, const Params p)
{
    matrix_product(x, weight, p, [&](const Row& row, const Column& column, Accumulator sum) {
        // An infinity or NaN may have met the zero of something absent: then the definition sums.
        if (!is_finite(sum)) {
            Index m;
            const Index group = divide(column.channel, p.M, m);
            sum = one_output(x, weight, p, row.n, group, m, row.q, column.r);
        }
        finish(sum, bias ? widen(bias[column.channel * p.bias_m]) : Accumulator{},
               out[row.out_at + column.out_at]);
    });
}
