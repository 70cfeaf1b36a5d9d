// depthwise: groups of so few channels that memory decides, not arithmetic.
//
//     out[n, m, o] = bias[m] + sum over (shift, c) of x[n, c, q - shift] * weight[c, m, tap]
//
// A thread computes runs of outputs (runs.cuh) from all channels of a group.  A block keeps the
// weights, which are few, for TILES tiles of runs.
//
// The order of summation is gather's: shifts ascending, then channels.  The bits are the same.
// Inputs beyond the ends of an axis are zeros; where a weight is not finite, runs that have such
// inputs are computed anew without.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"
#include "depthwise.cuh"
#include "runs.cuh"
#include "passages.cuh"

struct Shared {
    alignas(16) WeightVector weight[KERNEL_Z * KERNEL_Y][WEIGHT_VECTORS];
    Passages passages;
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "Python launches with SHARED_BYTES");

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
depthwise(const Element* __restrict__ x, const Element* __restrict__ weight,
          const Element* __restrict__ bias, Element* __restrict__ out, const Params p)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());
    const Axis& last = p.axis[AXES - 1];
    const bool x_vectors = x_in_vectors(p);

    // Which channels are mine, and which runs?
    Index block, part;
    const Index rest = divide(static_cast<Index>(blockIdx.x), p.row_blocks, block);
    const Index group = divide(rest, p.column_blocks, part);
    const Index first_m = part * OUT_CHANNELS;

    // The weights, in the order in which `multiply` reads them.
    const Index weight_at = group * p.weight_group + first_m * p.weight_m;
    bool finite = true;
#pragma unroll 1
    for (int i = threadIdx.x; i < KERNEL_Z * KERNEL_Y * WEIGHTS; i += THREADS) {
        const int at = i % WEIGHTS, row = i / WEIGHTS;
        const Accumulator one = fetch_weight(weight, weight_at, row, at, KERNEL_X, p);
        shared.weight[row][at / AT_ONCE].of[at % AT_ONCE] = one;
        finite = finite && is_finite(one);
    }
    const bool all_finite = !__syncthreads_or(!finite);

#pragma unroll 1
    for (int tile = 0; tile < TILES; ++tile) {
        const Index begin = (block * TILES + tile) * THREADS;
        if (begin >= p.group_runs) break;
        const Mine mine = run_at(begin + threadIdx.x, p);
        const Inputs mine_inputs = inputs_at(mine.first, x_vectors, last);
        Accumulator sum[PHASES_Y][OUT_CHANNELS][RUN] = {};
        bool whole = 0 <= mine.first && mine.first + INPUTS <= last.in_size;
#pragma unroll 1
        for (int jz = 0; jz < SHIFTS_Z; ++jz) {
            const int kz = WindowZ::tap(jz, mine.r_z);
            if (kz < 0) continue;
#pragma unroll 1
            for (int begin = 0; begin < SHIFTS_Y; begin += ROWS_AT_ONCE) {
                // All loads first, so that they are on their way together.
                Accumulator inputs[ROWS_AT_ONCE][CHANNELS][INPUTS];
                Index at[ROWS_AT_ONCE];
                bool there[ROWS_AT_ONCE];
#pragma unroll
                for (int row = 0; row < ROWS_AT_ONCE; ++row) {
                    at[row] = group * CHANNELS * p.x_c;
                    there[row] = input_row(mine, jz, begin + row, p, at[row]) && mine.exists;
                    whole = whole && there[row];
                }
#pragma unroll
                for (int row = 0; row < ROWS_AT_ONCE; ++row)
#pragma unroll
                    for (int c = 0; c < CHANNELS; ++c) {
                        const Element* from = x + (at[row] + mine_inputs.begin + c * p.x_c);
                        const Bits present = there[row] ? mine_inputs.present : 0;
                        XWords vectors[X_VECTORS] = {};
                        if (x_vectors)
                            load_vectors(from, present, vectors);
                        else
                            load_elements(from, x_step(last), present, vectors);
                        take_apart(vectors, inputs[row][c]);
                    }
#pragma unroll
                for (int row = 0; row < ROWS_AT_ONCE; ++row)
#pragma unroll
                    for (int phase = 0; phase < PHASES_Y; ++phase) {
                        const int ky = WindowY::tap(begin + row, PHASES_Y > 1 ? phase : mine.r_y);
                        if (WindowY::EVERY_TAP && SHIFTS_Y % ROWS_AT_ONCE == 0 || ky >= 0)
                            multiply(inputs[row], shared.weight[kz * KERNEL_Y + ky], sum[phase]);
                    }
            }
        }
        store_runs(sum, mine, group * p.M.divisor + first_m, bias, out, p, shared.passages);

        // A zero in the place of something absent does no harm, but times infinity it is NaN.
        if (!all_finite && !whole) compute_anew(x, weight, bias, out, mine, group, first_m, p);
    }
}
