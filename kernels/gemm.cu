// gemm: the whole transposed convolution as one matrix product on FMA units (gemm.cuh).
//
// Where there are few tiles and long sums, several blocks share a tile, and each sums a range of the
// channels.  Their parts go to a workspace, and gemm_sum adds them up.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "outputs.cuh"
#include "gather.cuh"
#include "gemm.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
gemm(const Element* __restrict__ x, const Element* __restrict__ weight,
     const Element* __restrict__ bias, Element* __restrict__ out, Accumulator* workspace,
     const Params p, const Division splits)
{
    Index split;
    const Index block = divide(static_cast<Index>(blockIdx.x), splits, split);
    const Channels channels = channels_of(split, splits, p);
    matrix_product(block, channels, x, weight, p,
                   [&](const Row& row, const Column& column, Accumulator sum) {
        if (splits.divisor > 1) {
            Index o[AXES];
#pragma unroll
            for (int a = 0; a < AXES; ++a) o[a] = position(row, column, a, p);
            parts_of(split, workspace, p)[number_of(row.n, column.channel, o, p)] = sum;
            return;
        }
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
