// direct: few output channels, of any number of input channels, on FMA units.
//
//     out[n, m, o] = bias[m] + sum over c, then shift, of x[n, c, q - shift] * weight[c, m, tap]
//
// A matrix product of few columns copies each input for few products.  Here a thread computes runs
// of outputs (runs.cuh): it loads a row of inputs of one channel once for all taps of that row, all
// phases and OUT_CHANNELS channels.
//
// A block walks over the channels, DEPTH of them with their weights in shared memory at a time.  So
// sums run over blocks of channels, then shifts, and the bits are not gather's.  A window too long for
// registers is a sum of PARTS_X windows of KERNEL_X taps, each at inputs further back.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"
#include "depthwise.cuh"
#include "runs.cuh"

static_assert(CHANNELS == 1, "inputs of one channel in registers");

constexpr int PART_SHIFT = KERNEL_X * DILATION_X / STRIDE_X;  // from one part to the next
constexpr int PART_ROWS = KERNEL_Z * KERNEL_Y;
static_assert(PARTS_X == 1 || PART_SHIFT * STRIDE_X == KERNEL_X * DILATION_X, "the same phases");
static_assert(PARTS_X == 1 || PART_SHIFT % X_VECTOR == 0, "the same place in a vector");

struct Shared {
    alignas(16) WeightVector weight[DEPTH][PARTS_X * PART_ROWS][WEIGHT_VECTORS];
    Passages passages;
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "Python launches with SHARED_BYTES");

// Adds the products of one row of inputs, in all channels whose weights are in shared memory.
template <bool VECTORS>
__device__ __forceinline__ void walk(const Element* __restrict__ from, Bits present,
                                     int depth, int jy, int ky,
                                     const WeightVector (*weight)[WEIGHT_VECTORS], const Params& p,
                                     Accumulator (&sum)[PHASES_Y][OUT_CHANNELS][RUN])
{
    XWords vectors[X_VECTORS] = {};
#pragma unroll 1
    for (int left = opaque(depth); left > 0; --left) {
        if constexpr (VECTORS)
            load_vectors(from, present, vectors);
        else
            load_elements(from, p.axis[AXES - 1].x_stride, present, vectors);
        Accumulator inputs[CHANNELS][INPUTS];
        take_apart(vectors, inputs[0]);
#pragma unroll
        for (int phase = 0; phase < PHASES_Y; ++phase) {
            const int k = PHASES_Y > 1 ? WindowY::tap(jy, phase) : ky;
            if (PHASES_Y == 1 || WindowY::EVERY_TAP || k >= 0)
                multiply(inputs, weight[k], sum[phase]);
        }
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

    // Which channels are mine, and which runs?  Neighbouring blocks share their inputs.
    Index column_block, block;
    const Index rest = divide(static_cast<Index>(blockIdx.x), p.column_blocks, column_block);
    const Index group = divide(rest, p.row_blocks, block);
    const Index first_m = column_block * OUT_CHANNELS;
    const Mine mine = run_at(block * THREADS + threadIdx.x, p);

    Accumulator sum[PHASES_Y][OUT_CHANNELS][RUN] = {};
#pragma unroll 1
    for (Index c = 0; c < p.C; c += DEPTH) {
        // Their weights, in the order in which `multiply` reads them.
        const int depth = p.C - c < DEPTH ? static_cast<int>(p.C - c) : DEPTH;
        if (c > 0) __syncthreads();
#pragma unroll 1
        for (int i = threadIdx.x; i < PARTS_X * PART_ROWS * WEIGHTS; i += THREADS) {
            const int at = i % WEIGHTS, row = i / WEIGHTS;
            const int first_tap = row / PART_ROWS * KERNEL_X;
            Index from = group * p.weight_group + first_m * p.weight_m + c * p.weight_c
                       + first_tap * last.weight_stride;
#pragma unroll 4
            for (int d = 0; d < depth; ++d, from += p.weight_c)
                shared.weight[d][row][at / AT_ONCE].of[at % AT_ONCE] =
                    fetch_weight(weight, from, row % PART_ROWS, at, last.kernel_size - first_tap, p);
        }
        __syncthreads();

#pragma unroll 1
        for (int part = 0; part < PARTS_X; ++part) {
            const Inputs inputs = inputs_at(mine.first - part * PART_SHIFT, x_vectors, last);
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

    // A zero in the place of something absent does no harm, but times infinity it is NaN.
    const Index begin = mine.first - (PARTS_X - 1) * PART_SHIFT, end = mine.first + INPUTS;
    bool spoilt = false;
    if (PARTS_X > 1 || begin < 0 || end > last.in_size) {
#pragma unroll
        for (int phase = 0; phase < PHASES_Y; ++phase)
#pragma unroll
            for (int m = 0; m < OUT_CHANNELS; ++m)
#pragma unroll
                for (int e = 0; e < RUN; ++e) spoilt = spoilt || !is_finite(sum[phase][m][e]);
    }
    store_runs(sum, mine, group * p.M.divisor + first_m, bias, out, p, shared.passages);
    if (spoilt) compute_anew(x, weight, bias, out, mine, group, first_m, p);
}
