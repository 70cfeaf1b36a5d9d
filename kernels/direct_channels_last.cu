// direct_channels_last: few output channels, where channels are nearest in memory.
//
//     out[n, m, o] = bias[m] + sum over c, then shift, of x[n, c, q - shift] * weight[c, m, tap]
//
// A thread computes runs of outputs, as in direct.cu.  But an input's neighbours are other channels
// here, and threads that each load their own inputs would ask for a line each.  So a block brings the
// inputs of all its runs into shared memory, DEPTH channels of one row of each at a time, where
// neighbouring threads fetch neighbouring channels.  Then every thread reads what is its own.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"
#include "depthwise.cuh"
#include "runs.cuh"
#include "direct.cuh"

using XVector = Vector<Element, X_VECTOR>;  // neighbouring channels of one input
constexpr int LANES = DEPTH / X_VECTOR;     // threads side by side that fetch an input
static_assert(DEPTH % X_VECTOR == 0 && THREADS % LANES == 0, "whole vectors, whole inputs");

// The inputs of a row of one run.  Their number of vectors is odd, so that threads that read the same
// place of theirs at once find it in different banks.
constexpr int PITCH = INPUTS * LANES + (INPUTS * LANES + 1) % 2;

// Where the inputs of a run begin in x, and a bit for each that is there.
struct Source {
    Index at;
    Bits present;
};

struct Shared {
    alignas(16) Weights weight;
    alignas(16) XVector x[THREADS][PITCH];
    alignas(16) Source source[THREADS];
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "Python launches with SHARED_BYTES");

// Brings in a row of inputs of all runs, in so many channels from where the sources say.
__device__ __forceinline__ void bring_inputs(const Element* __restrict__ x, int depth,
                                             const Params& p, Shared& shared)
{
    const unsigned int thread = threadIdx.x;  // without a sign, so that a division is a shift
    const int lane = thread % LANES;
    if (lane * X_VECTOR < depth) {
#pragma unroll 1
        for (int run = thread / LANES; run < THREADS; run += THREADS / LANES) {
            const Source source = shared.source[run];
            if (source.present == 0) continue;
            const Element* from = x + (source.at + lane * X_VECTOR * p.x_c);
#pragma unroll
            for (int input = 0; input < INPUTS; ++input) {
                if (!is_read(input)) continue;
                const bool there = source.present >> input & 1;
                XVector& to = shared.x[run][input * LANES + lane];
                const auto* vector = reinterpret_cast<const XVector*>(
                    from + input * p.axis[AXES - 1].x_stride);
                if constexpr (ASYNC)
                    copy_async_if<sizeof(XVector)>(there, &to, vector);
                else
                    to = there ? *vector : XVector{};
            }
        }
    }
    if constexpr (ASYNC) copy_async_commit();
    if constexpr (ASYNC) copy_async_wait<0>();
}

// Adds the products of my row of inputs, in all channels that are in shared memory.
__device__ __forceinline__ void walk(const XVector* from, int depth, int jy, int ky,
                                     const WeightRow* weight,
                                     Accumulator (&sum)[PHASES_Y][OUT_CHANNELS][RUN])
{
#pragma unroll 1
    for (int left = depth; left > 0; left -= X_VECTOR, ++from) {
        XVector vectors[INPUTS];
#pragma unroll
        for (int input = 0; input < INPUTS; ++input)
            if (is_read(input)) vectors[input] = from[input * LANES];
#pragma unroll
        for (int v = 0; v < X_VECTOR; ++v, weight += PARTS_X * PART_ROWS) {
            Accumulator inputs[CHANNELS][INPUTS];
#pragma unroll
            for (int input = 0; input < INPUTS; ++input)
                if (is_read(input)) inputs[0][input] = widen(vectors[input].of[v]);
            multiply(inputs, weight, jy, ky, sum);
        }
    }
}

// Stores my sums, the channels of an output side by side.
__device__ __forceinline__ void store(const Accumulator (&sum)[PHASES_Y][OUT_CHANNELS][RUN],
                                      const Mine& mine, Index channel,
                                      const Element* __restrict__ bias, Element* __restrict__ out,
                                      const Params& p)
{
    const Run first = outputs_of(mine, channel, p);
    Accumulator added[OUT_CHANNELS] = {};
#pragma unroll
    for (int m = 0; m < OUT_CHANNELS; ++m)
        if (bias) added[m] = widen(bias[(channel + m) * p.bias_m]);
#pragma unroll
    for (int phase = 0; phase < PHASES_Y; ++phase) {
        const Run run = outputs_of(first, mine, phase, 0, p);
#pragma unroll
        for (int e = 0; e < RUN; ++e) {
#pragma unroll
            for (int m = 0; m < OUT_CHANNELS; m += OUT_VECTOR) {
                OutVector some;
#pragma unroll
                for (int v = 0; v < OUT_VECTOR; ++v)
                    finish(sum[phase][m + v][e], added[m + v], some.of[v]);
                const Index at = run.at + e * p.axis[AXES - 1].out_stride + m * p.out_m;
                if (e < run.count) *reinterpret_cast<OutVector*>(out + at) = some;
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
direct_channels_last(const Element* __restrict__ x, const Element* __restrict__ weight,
                     const Element* __restrict__ bias, Element* __restrict__ out, const Params p)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());
    const Axis& last = p.axis[AXES - 1];
    const auto [group, first_m, mine] = my_task(p);

    Accumulator sum[PHASES_Y][OUT_CHANNELS][RUN] = {};
#pragma unroll 1
    for (Index c = 0; c < p.C; c += DEPTH) {
        const int depth = p.C - c < DEPTH ? static_cast<int>(p.C - c) : DEPTH;
        if (c > 0) __syncthreads();
        fetch_weights(weight, group, first_m, c, depth, p, shared.weight);

#pragma unroll 1
        for (int part = 0; part < PARTS_X; ++part) {
            const Inputs inputs = inputs_at(first_of(part, mine), false, last);
#pragma unroll 1
            for (int jz = 0; jz < SHIFTS_Z; ++jz) {
                const int kz = WindowZ::tap(jz, mine.r_z);
#pragma unroll 1
                for (int jy = 0; jy < SHIFTS_Y; ++jy) {
                    const int ky = PHASES_Y > 1 ? 0 : WindowY::tap(jy, mine.r_y);
                    Index at = (group * p.C + c) * p.x_c;
                    const bool there = input_row(mine, jz, jy, p, at) && mine.exists
                                    && kz >= 0 && ky >= 0;
                    const Bits present = there ? inputs.present : 0;
                    shared.source[threadIdx.x] = {at + inputs.begin, present};
                    __syncthreads();  // and everyone has read the row before
                    bring_inputs(x, depth, p, shared);
                    __syncthreads();
                    if (present == 0) continue;
                    walk(shared.x[threadIdx.x], depth, jy, ky,
                         shared.weight[0] + part * PART_ROWS + kz * KERNEL_Y, sum);
                }
            }
        }
    }

    store(sum, mine, group * p.M.divisor + first_m, bias, out, p);
    if (is_spoilt(sum, mine, last))
        compute_anew(x, weight, bias, out, mine, group, first_m, p);
}
