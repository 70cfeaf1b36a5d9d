// depthwise_channels_last: each channel by itself, where channels are nearest in memory.
//
//     out[n, m, o] = bias[m] + sum over shifts of x[n, m, q - shift] * weight[m, tap]
//
// Neighbouring threads have neighbouring channels, X_VECTOR each, so what a warp loads and stores
// lies side by side.  A thread walks along the last axis.  It keeps the inputs that its window
// covers in registers and loads those that are new in a round, from each row of its window; with these
// it computes STEP_Q q in all phases, in PHASES_Y rows.
//
// The order of summation is gather's: shifts ascending.  The bits are the same.  Inputs beyond the
// ends of the last axis are zeros; where a weight is not finite, walks that have such inputs are
// computed anew without.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"
#include "depthwise.cuh"

static_assert(X_VECTOR == OUT_VECTOR, "a thread has the same channels of both");
constexpr int VECTOR = X_VECTOR;
constexpr int PHASES_X = WindowX::PHASES, RUN = STEP_Q * PHASES_X;

// The inputs of a row in one round.  Some of them the round before has loaded.
constexpr int ADVANCE = WindowX::IN_STRIDE * STEP_Q;
constexpr int INPUTS = ADVANCE - WindowX::IN_STRIDE + 1 + WindowX::LAST_SHIFT;
constexpr int KEPT = INPUTS < ADVANCE ? 0 : INPUTS - ADVANCE;

constexpr int WINDOW_ROWS = WindowZ::SHIFTS * WindowY::SHIFTS;
constexpr int NO_TAPS = KERNEL_Z * KERNEL_Y;  // a row of zeros behind the rows of taps

using Channels = Accumulator[VECTOR];

// The taps side by side as the channels are; a place is left free, so that those of one channel do
// not all lie in one bank.
struct Shared {
    alignas(16) OutVector weight[(NO_TAPS + 1) * KERNEL_X][CHANNEL_LANES + 1];
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "Python launches with SHARED_BYTES");

// Is it known to the compiler that a phase of Y has no tap at a shift?
__device__ __forceinline__ constexpr bool no_tap(int jy, int phase)
{
    return PHASES_Y > 1 && WindowY::tap(jy, phase) < 0;
}

__device__ __forceinline__ void load(const Element* from, bool there, Channels& to)
{
    if constexpr (X_IN_WORDS) {
        XWords some = {};
        if (there) some = *reinterpret_cast<const XWords*>(from);
#pragma unroll
        for (int c = 0; c < VECTOR; ++c) to[c] = widen(element(some, c));
    } else {
        to[0] = there ? widen(*from) : Accumulator{};
    }
}

__device__ __forceinline__ void widen(const OutVector& some, Channels& to)
{
#pragma unroll
    for (int c = 0; c < VECTOR; ++c) to[c] = widen(some.of[c]);
}

__device__ __forceinline__ Index smaller(Index a, Index b) { return a < b ? a : b; }

struct Walk : OutRow {
    Index begin, size;  // along the last axis, in q, counted from the first
};

__device__ __forceinline__ Walk walk_at(Index number, const Params& p)
{
    const Axis& last = p.axis[AXES - 1];
    Walk walk = {};
    Index run;
    number = divide(number, p.row_runs, run);
    const Index rounds = quotient(last.q_size.divisor - 1, p.row_runs) / STEP_Q + 1;
    walk.begin = run * rounds * STEP_Q;
    walk.size = smaller(rounds * STEP_Q, last.q_size.divisor - walk.begin);
    find(number, p, walk);
    return walk;
}

// The rows of a window: where they begin in x, and where their taps are in shared memory.  One that
// is outside, or has no tap in my phase, is not there: zeros are multiplied by zeros.
struct Rows {
    Index at[WINDOW_ROWS];
    bool there[WINDOW_ROWS];
    int taps[PHASES_Y][WINDOW_ROWS];
};

__device__ __forceinline__ Rows rows_at(const Walk& walk, Index channel, const Params& p)
{
    Rows rows;
#pragma unroll
    for (int row = 0; row < WINDOW_ROWS; ++row) {
        const int jz = row / WindowY::SHIFTS, jy = row % WindowY::SHIFTS;
        const int kz = WindowZ::tap(jz, walk.r_z);
        rows.at[row] = channel * p.x_c;
        const bool there = input_row(walk, jz, jy, p, rows.at[row]) && kz >= 0
                        && (PHASES_Y > 1 || WindowY::tap(jy, walk.r_y) >= 0);
        rows.there[row] = there;
#pragma unroll
        for (int phase = 0; phase < PHASES_Y; ++phase) {
            const int ky = WindowY::tap(jy, PHASES_Y > 1 ? phase : walk.r_y);
            rows.taps[phase][row] = KERNEL_X * (there && ky >= 0 ? kz * KERNEL_Y + ky : NO_TAPS);
        }
    }
    return rows;
}

// Brings the weights of a block's channels in, in the order in which they lie in memory.  Are those
// that this thread has seen finite?
__device__ __forceinline__ bool bring_weights(const Element* __restrict__ weight,
                                              Index first_channel, int channels, const Params& p,
                                              Shared& shared)
{
    const Axis& last = p.axis[AXES - 1];
    constexpr int TAPS = NO_TAPS * KERNEL_X;
    const bool taps_nearest = last.weight_stride < p.weight_group;
    bool finite = true;
#pragma unroll 1
    for (int i = threadIdx.x; i < TAPS * channels; i += THREADS) {
        const int tap = taps_nearest ? i % TAPS : i / channels;
        const int c = taps_nearest ? i / TAPS : i % channels;
        if (first_channel + c >= p.channels.divisor) continue;
        Index from = (first_channel + c) * p.weight_group + tap % KERNEL_X * last.weight_stride;
        if (AXES > 1) from += tap / KERNEL_X % KERNEL_Y * p.axis[Y].weight_stride;
        if (AXES > 2) from += tap / KERNEL_X / KERNEL_Y * p.axis[0].weight_stride;
        const Element one = weight[from];
        shared.weight[tap][c / VECTOR].of[c % VECTOR] = one;
        finite = finite && is_finite(widen(one));
    }
    for (int i = threadIdx.x; i < KERNEL_X * CHANNEL_LANES; i += THREADS)
        shared.weight[TAPS + i / CHANNEL_LANES][i % CHANNEL_LANES] = {};
    return finite;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
depthwise_channels_last(const Element* __restrict__ x, const Element* __restrict__ weight,
                        const Element* __restrict__ bias, Element* __restrict__ out,
                        const Params p)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());
    const Axis& last = p.axis[AXES - 1];

    // Which channels are mine, and which walk?
    Index part;
    const Index block = divide(static_cast<Index>(blockIdx.x), p.column_blocks, part);
    const int lanes =
        static_cast<int>(quotient(p.channels.divisor / VECTOR - 1, p.column_blocks)) + 1;
    const int lane = threadIdx.x % lanes, walker = threadIdx.x / lanes, walkers = THREADS / lanes;
    const Index first_channel = part * lanes * VECTOR, channel = first_channel + lane * VECTOR;

    const bool all_finite =
        !__syncthreads_or(!bring_weights(weight, first_channel, lanes * VECTOR, p, shared));

    const Index number = block * walkers + walker;
    if (walker == walkers || channel >= p.channels.divisor || number >= p.group_runs) return;
    const Walk walk = walk_at(number, p);

    const Rows rows = rows_at(walk, channel, p);

    // Few weights are held in registers; many are read again in each round.
    Channels held[PHASES_Y][WINDOW_ROWS][KERNEL_X];
    const auto read_weight = [&](int phase, int row, int k) {
        widen(shared.weight[rows.taps[phase][row] + k][lane], held[phase][row][k]);
    };
#pragma unroll
    for (int phase = 0; WEIGHTS_HELD && phase < PHASES_Y; ++phase)
#pragma unroll
        for (int row = 0; row < WINDOW_ROWS; ++row)
#pragma unroll
            for (int k = 0; k < KERNEL_X; ++k) read_weight(phase, row, k);

    Channels added = {};
#pragma unroll
    for (int c = 0; c < VECTOR; ++c)
        if (bias) added[c] = widen(bias[(channel + c) * p.bias_m]);

    Index out_at = walk.n * p.out_n + channel * p.out_m;
    if constexpr (AXES > 1) out_at += walk.y * p.axis[Y].out_stride;
    if constexpr (AXES > 2) out_at += walk.z * p.axis[0].out_stride;
    const Index first_o = walk.begin * PHASES_X - last.r_begin;
    const Index out_y = AXES > 1 ? p.axis[Y].out_stride : 0;
    const auto row_exists = [&](int phase) {
        return PHASES_Y == 1 || inside(walk.y + phase, p.axis[Y].out_size.divisor);
    };

    // Pointers go along with the rounds: that takes fewest instructions.
    const Index first = WindowX::first(last.q_begin + walk.begin, last);  // input
    const long long x_step = last.x_stride, out_step = last.out_stride;
    const Element* from[WINDOW_ROWS];
#pragma unroll
    for (int row = 0; row < WINDOW_ROWS; ++row) from[row] = x + (rows.at[row] + first * x_step);
    Element* to[PHASES_Y];
#pragma unroll
    for (int phase = 0; phase < PHASES_Y; ++phase)
        to[phase] = out + (out_at + phase * out_y + first_o * out_step);

    Channels inputs[WINDOW_ROWS][INPUTS];
    const auto load_some = [&](int begin, int end, Index first) {
#pragma unroll
        for (int row = 0; row < WINDOW_ROWS; ++row)
#pragma unroll
            for (int input = 0; input < INPUTS; ++input)
                if (begin <= input && input < end)
                    load(from[row] + input * x_step,
                         rows.there[row] && inside(first + input, last.in_size),
                         inputs[row][input]);
    };
    load_some(0, KEPT, first);

#pragma unroll 1
    for (Index q = 0; q < walk.size; q += STEP_Q) {
        load_some(KEPT, INPUTS, first + q * WindowX::IN_STRIDE);

        Channels sum[PHASES_Y][STEP_Q][PHASES_X] = {};
#pragma unroll
        for (int row = 0; row < WINDOW_ROWS; ++row)
#pragma unroll
            for (int j = 0; j < WindowX::SHIFTS; ++j)
#pragma unroll
                for (int r = 0; r < PHASES_X; ++r) {
                    const int k = WindowX::tap(j, r);
                    if (k < 0) continue;
#pragma unroll
                    for (int phase = 0; phase < PHASES_Y; ++phase) {
                        if (no_tap(row % WindowY::SHIFTS, phase)) continue;
                        if (!WEIGHTS_HELD) read_weight(phase, row, k);
#pragma unroll
                        for (int step = 0; step < STEP_Q; ++step)
#pragma unroll
                            for (int c = 0; c < VECTOR; ++c)
                                multiply_add(sum[phase][step][r][c],
                                             inputs[row][WindowX::input(step, j)][c],
                                             held[phase][row][k][c]);
                    }
                }

        const Index before = -(first_o + q * PHASES_X), left = last.out_size.divisor + before;
#pragma unroll
        for (int phase = 0; phase < PHASES_Y; ++phase) {
#pragma unroll
            for (int e = 0; e < RUN; ++e) {
                if (!row_exists(phase) || e < before || e >= left) continue;
                OutVector some;
#pragma unroll
                for (int c = 0; c < VECTOR; ++c)
                    finish(sum[phase][e / PHASES_X][e % PHASES_X][c], added[c], some.of[c]);
                *reinterpret_cast<OutVector*>(to[phase] + e * out_step) = some;
            }
            to[phase] += RUN * out_step;
        }

        // The next round's window: what its inputs have in common with this one's.
#pragma unroll
        for (int row = 0; row < WINDOW_ROWS; ++row) {
#pragma unroll
            for (int input = 0; input < KEPT; ++input)
#pragma unroll
                for (int c = 0; c < VECTOR; ++c)
                    inputs[row][input][c] = inputs[row][input + ADVANCE][c];
            from[row] += ADVANCE * x_step;
        }
    }

    // A zero in the place of something absent does no harm, but times infinity it is NaN.
    const Index last_input = first + (walk.size - 1) * WindowX::IN_STRIDE + WindowX::LAST_SHIFT;
    if (all_finite || (0 <= first && last_input < last.in_size)) return;
    const Index end_o = smaller(first_o + walk.size * PHASES_X, last.out_size.divisor);
#pragma unroll 1
    for (Index o = first_o; o < end_o; ++o)
#pragma unroll 1
        for (int e = 0; e < PHASES_Y * VECTOR; ++e) {
            const int phase = e / VECTOR, c = e % VECTOR;
            if (o < 0 || !row_exists(phase)) continue;
            Index q[AXES], r[AXES];
            if constexpr (AXES > 2) q[0] = walk.q_z, r[0] = walk.r_z;
            if constexpr (AXES > 1) q[Y] = walk.q_y, r[Y] = PHASES_Y > 1 ? phase : walk.r_y;
            q[AXES - 1] = last.q_begin + (o + last.r_begin) / PHASES_X;
            r[AXES - 1] = (o + last.r_begin) % PHASES_X;
            const Index m = channel + c;
            finish(one_output<1>(x, weight, p, walk.n, m, 0, q, r),
                   bias ? widen(bias[m * p.bias_m]) : Accumulator{},
                   out[out_at + c * p.out_m + phase * out_y + o * last.out_stride]);
        }
}
