// direct: few output channels, of any number of input channels, on FMA units.
//
//     out[n, m, o] = bias[m] + sum over c, then shift, of x[n, c, q - shift] * weight[c, m, tap]
//
// A matrix product of few columns copies each input for few products.  Here a thread computes runs
// of outputs (runs.cuh): it loads a row of inputs of one channel once for all taps of that row, all
// phases and OUT_CHANNELS channels.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"
#include "depthwise.cuh"
#include "runs.cuh"
#include "passages.cuh"
#include "direct.cuh"

static_assert(PARTS_X == 1 || PART_STEP % X_VECTOR == 0, "the same place in a vector");

struct Shared {
    alignas(16) Weights weight;
    Passages passages;
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "Python launches with SHARED_BYTES");

// Adds the products of one row of inputs, in all channels whose weights are in shared memory.
template <bool VECTORS>
__device__ __forceinline__ void walk(const Element* __restrict__ from, Bits present,
                                     int depth, int jy, int ky,
                                     const WeightRow* weight, const Params& p,
                                     Accumulator (&sum)[PHASES_Y][OUT_CHANNELS][RUN])
{
    XWords vectors[X_VECTORS] = {};
#pragma unroll 1
    for (int left = opaque(depth); left > 0; --left) {
        if constexpr (VECTORS)
            load_vectors(from, present, vectors);
        else
            load_elements(from, x_step(p.axis[AXES - 1]), present, vectors);
        Accumulator inputs[CHANNELS][INPUTS];
        take_apart(vectors, inputs[0]);
        multiply(inputs, weight, jy, ky, sum);
        from += p.x_c;
        weight += PARTS_X * PART_ROWS;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
direct(const Element* __restrict__ x, const Element* __restrict__ weight,
       const Element* __restrict__ bias, Element* __restrict__ out, const Params p)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());
    const Axis& last = p.axis[AXES - 1];
    const bool x_vectors = x_in_vectors(p);
    const auto [group, first_m, mine] = my_task(p);

    Accumulator sum[PHASES_Y][OUT_CHANNELS][RUN] = {};
#pragma unroll 1
    for (Index c = 0; c < p.C; c += DEPTH) {
        const int depth = p.C - c < DEPTH ? static_cast<int>(p.C - c) : DEPTH;
        if (c > 0) __syncthreads();
        fetch_weights(weight, group, first_m, c, depth, p, shared.weight);
        __syncthreads();

#pragma unroll 1
        for (int part = 0; part < PARTS_X; ++part) {
            const Inputs inputs = inputs_at(first_of(part, mine), x_vectors, last);
#pragma unroll 1
            for (int jz = 0; jz < SHIFTS_Z; ++jz) {
                const int kz = WindowZ::tap(jz, mine.r_z);
#pragma unroll 1
                for (int jy = 0; jy < SHIFTS_Y; ++jy) {
                    const int ky = PHASES_Y > 1 ? 0 : WindowY::tap(jy, mine.r_y);
                    if (kz < 0 || ky < 0) continue;
                    Index at = (group * p.C + c) * p.x_c;
                    if (!input_row(mine, jz, jy, p, at) || !mine.exists) continue;
                    const Element* from = x + (at + inputs.begin);
                    const auto* rows = shared.weight[0] + part * PART_ROWS + kz * KERNEL_Y;
                    if (x_vectors)
                        walk<true>(from, inputs.present, depth, jy, ky, rows, p, sum);
                    else
                        walk<false>(from, inputs.present, depth, jy, ky, rows, p, sum);
                }
            }
        }
    }

    const bool spoilt = is_spoilt(sum, mine, last);
    store_runs(sum, mine, group * p.M.divisor + first_m, bias, out, p, shared.passages);
    if (spoilt) compute_anew(x, weight, bias, out, mine, group, first_m, p);
}
