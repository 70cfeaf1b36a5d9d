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
#include "product.cuh"
#include "gemm.cuh"

// The outputs of one block, or its parts of them.
struct Outputs {
    const Element *x, *weight, *bias;
    Element* out;
    Accumulator* parts;  // in the workspace; null where no other block shares these sums
    const Params& p;

    __device__ __forceinline__ Accumulator added(const Column& column) const
    {
        if (!bias || parts || column.channel < 0) return {};
        return widen(bias[column.channel * p.bias_m]);
    }

    __device__ __forceinline__ void hand_out(const Shared& shared, int span, Index columns) const
    {
        if (parts) {
            visit_outputs<false>(shared, span, columns, p, [&](const Row& row, const Column& column,
                                                               Accumulator sum) {
                Index o[AXES];
#pragma unroll
                for (int a = 0; a < AXES; ++a) o[a] = position(row, column, a, p);
                parts[number_of(row.n, column.channel, o, p)] = sum;
            });
            return;
        }
        Accumulator watched = {};
        visit_outputs<true>(shared, span, columns, p, [&](const Row& row, const Column& column,
                                                          Accumulator sum) {
            finish(sum, out[row.out_at + column.out_at]);
            watch(watched, sum);
        });
        if (is_finite(watched)) return;
        // An infinity or NaN may have met the zero of something absent: then the definition sums.
        visit_outputs<false>(shared, span, columns, p, [&](const Row& row, const Column& column,
                                                           Accumulator sum) {
            if (is_finite(sum)) return;
            Index m;
            const Index group = divide(column.channel, p.M, m);
            finish(one_output(x, weight, p, row.n, group, m, row.q, column.r), added(column),
                   out[row.out_at + column.out_at]);
        });
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
gemm(const Element* __restrict__ x, const Element* __restrict__ weight,
     const Element* __restrict__ bias, Element* __restrict__ out, Accumulator* workspace,
     const Params p, const Division splits)
{
    Index split;
    const Index block = divide(static_cast<Index>(blockIdx.x), splits, split);
    Accumulator* const parts = splits.divisor > 1 ? parts_of(split, workspace, p) : nullptr;
    matrix_product(block, channels_of(split, splits, p), x, weight, p,
                   Outputs{x, weight, bias, out, parts, p});
}
