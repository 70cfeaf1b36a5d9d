// depthwise: groups of so few channels that memory decides, not arithmetic.
//
//     out[n, m, o] = bias[m] + sum over (shift, c) of x[n, c, q - shift] * weight[c, m, tap]
//
// A thread computes a run: RUN neighbours along the last axis, which are all phases of RUN_Q
// neighbouring q, in PHASES_Y rows and for OUT_CHANNELS channels.  The window is known to the
// compiler, so the inputs of a row lie in registers and each sum names its own.  Weights are read
// from shared memory, each once for RUN_Q products.  Results leave through shared memory as well:
// there neighbouring threads find neighbouring vectors, whatever the stride.
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

// --- a run along the last axis, at compile time -------------------------------------------------

constexpr int RUN = RUN_Q * STRIDE_X;
constexpr int SHIFTS_X = WindowX::SHIFTS, LAST_SHIFT = WindowX::LAST_SHIFT;

// A run begins with phase FIRST_PHASE; its e-th output has this q, counted from the first, and r.
__device__ constexpr int q_of(int e) { return (FIRST_PHASE + e) / STRIDE_X; }
__device__ constexpr int r_of(int e) { return (FIRST_PHASE + e) % STRIDE_X; }

// The inputs of a run, from the first q's last shift to the last q.
constexpr int INPUTS = q_of(RUN - 1) + 1 + LAST_SHIFT;

// A bit for each input that a product needs; a dilated window leaves some out.
__device__ constexpr unsigned long long inputs_read()
{
    unsigned long long read = 0;
    for (int e = 0; e < RUN; ++e)
        for (int j = 0; j < SHIFTS_X; ++j)
            if (WindowX::tap(j, r_of(e)) >= 0)
                read |= 1ull << (q_of(e) + LAST_SHIFT - WindowX::shift(j));
    return read;
}
constexpr unsigned long long INPUTS_READ = inputs_read();
static_assert(INPUTS <= 64, "one bit for each input");

__device__ __forceinline__ constexpr bool is_read(int input)
{
    return INPUTS_READ >> input & 1;
}

// --- what lies in shared memory -----------------------------------------------------------------

using WeightVector = Vector<Accumulator, 16 / sizeof(Accumulator)>;

// The first input of a run is the X_LEAD-th element of a vector.
constexpr int X_VECTORS = (X_LEAD + INPUTS - 1) / X_VECTOR + 1;

// Weights of one row of taps, in the order in which they are needed.
constexpr int WEIGHTS = SHIFTS_X * CHANNELS * OUT_CHANNELS * STRIDE_X;
constexpr int AT_ONCE = sizeof(WeightVector) / sizeof(Accumulator);
constexpr int WEIGHT_VECTORS = (WEIGHTS + AT_ONCE - 1) / AT_ONCE;

// A row of a thread's outputs is OUT_VECTORS vectors.  Where that is even, one place in each 128
// bytes is left free, so that the threads' vectors lie in different banks.
constexpr int OUT_VECTORS = RUN / OUT_VECTOR;
static_assert(OUT_VECTORS * OUT_VECTOR == RUN, "a run is made of whole vectors");
constexpr int LINE = OUT_VECTORS % 2 == 0 ? 128 / sizeof(OutVector) : 1 << 30;

__device__ __forceinline__ constexpr int place(int vector) { return vector + vector / LINE; }

// A row of all threads' outputs on its way out.
constexpr int ROWS_OUT = PHASES_Y * OUT_CHANNELS;
struct Run {
    Index at, count;  // the place of the first output, and how many there are
};
struct Passage {
    alignas(16) OutVector vector[place(THREADS * OUT_VECTORS - 1) + 1];
    alignas(16) Run run[THREADS];
};

struct Shared {
    alignas(16) WeightVector weight[KERNEL_Z * KERNEL_Y][WEIGHT_VECTORS];
    Passage passage[ROWS_OUT > 1 ? 2 : 1];
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "Python launches with SHARED_BYTES");

// --- which run is mine? -------------------------------------------------------------------------

constexpr int SHIFTS_Y = WindowY::SHIFTS, SHIFTS_Z = WindowZ::SHIFTS;

// A run on its way from its number to its outputs.
struct Mine : OutRow {
    Index first, o;  // along the last axis: the first input, and the first output
    bool exists;
};

__device__ __forceinline__ Mine run_at(Index index, const Params& p)
{
    Mine mine = {};
    mine.exists = index < p.group_runs;
    if (!mine.exists) return mine;
    Index run;
    index = divide(index, p.row_runs, run);
    mine.o = run * RUN;
    mine.first = p.axis[AXES - 1].q_begin + run * RUN_Q - LAST_SHIFT;
    find(index, p, mine);
    return mine;
}

// Is every row of an array made of whole vectors of this size, and nothing in between?
__device__ __forceinline__ bool in_vectors(int size, Index n, Index c, Index y, Index z, Index x,
                                           Index length)
{
    return x == 1 && n % size == 0 && c % size == 0 && y % size == 0 && z % size == 0
        && length % size == 0;
}

// --- one step of the sum ------------------------------------------------------------------------

// Loads the inputs of a run from one row, in vectors or one by one; what is not there is 0.
__device__ __forceinline__ void load_vectors(const Element* __restrict__ row, bool there,
                                             Index first, Index size, Accumulator (&to)[INPUTS])
{
    XWords some[X_VECTORS] = {};
#pragma unroll
    for (int v = 0; v < X_VECTORS; ++v) {
        const Index i = first - X_LEAD + v * X_VECTOR;
        if (there && inside(i, size)) some[v] = *reinterpret_cast<const XWords*>(row + i);
    }
#pragma unroll
    for (int input = 0; input < INPUTS; ++input) {
        const int at = X_LEAD + input;
        if (is_read(input)) to[input] = widen(element(some[at / X_VECTOR], at % X_VECTOR));
    }
}

__device__ __forceinline__ void load_elements(const Element* __restrict__ row, bool there,
                                              Index first, const Axis& axis,
                                              Accumulator (&to)[INPUTS])
{
#pragma unroll
    for (int input = 0; input < INPUTS; ++input) {
        const Index i = first + input;
        to[input] = {};
        if (is_read(input) && there && inside(i, axis.in_size))
            to[input] = widen(row[i * axis.x_stride]);
    }
}

// Adds the products of one row of inputs and one row of taps.
__device__ __forceinline__ void multiply(const Accumulator (&x)[CHANNELS][INPUTS],
                                         const WeightVector (&weight)[WEIGHT_VECTORS],
                                         Accumulator (&sum)[OUT_CHANNELS][RUN])
{
    WeightVector some;
#pragma unroll
    for (int at = 0; at < WEIGHTS; ++at) {
        if (at % AT_ONCE == 0) some = weight[at / AT_ONCE];
        const int r = at % STRIDE_X, m = at / STRIDE_X % OUT_CHANNELS;
        const int c = at / STRIDE_X / OUT_CHANNELS % CHANNELS;
        const int j = at / STRIDE_X / OUT_CHANNELS / CHANNELS;
        if (WindowX::tap(j, r) < 0) continue;
#pragma unroll
        for (int e = 0; e < RUN; ++e)
            if (r_of(e) == r)
                multiply_add(sum[m][e], x[c][q_of(e) + LAST_SHIFT - WindowX::shift(j)],
                             some.of[at % AT_ONCE]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
depthwise(const Element* __restrict__ x, const Element* __restrict__ weight,
          const Element* __restrict__ bias, Element* __restrict__ out, const Params p)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());
    const Axis& last = p.axis[AXES - 1];
    const Index x_y = AXES > 1 ? p.axis[Y].x_stride : 0, x_z = AXES > 2 ? p.axis[0].x_stride : 0;
    const Index out_y = AXES > 1 ? p.axis[Y].out_stride : 0;
    const Index out_z = AXES > 2 ? p.axis[0].out_stride : 0;
    const bool x_vectors = X_IN_WORDS
        && in_vectors(X_VECTOR, p.x_n, p.x_c, x_y, x_z, last.x_stride, last.in_size);
    const bool out_vectors = in_vectors(OUT_VECTOR, p.out_n, p.out_m, out_y, out_z, last.out_stride,
                                        last.out_size.divisor);

    // Which channels are mine, and which runs?
    Index block, part;
    const Index rest = divide(static_cast<Index>(blockIdx.x), p.row_blocks, block);
    const Index group = divide(rest, p.column_blocks, part);
    const Index first_m = part * OUT_CHANNELS, channel = group * p.M.divisor + first_m;

    // The weights, in the order in which `multiply` reads them.
    bool finite = true;
#pragma unroll 1
    for (int i = threadIdx.x; i < KERNEL_Z * KERNEL_Y * WEIGHTS; i += THREADS) {
        const int at = i % WEIGHTS, row = i / WEIGHTS;
        const int r = at % STRIDE_X, m = at / STRIDE_X % OUT_CHANNELS;
        const int c = at / STRIDE_X / OUT_CHANNELS % CHANNELS;
        const int k = WindowX::tap(at / STRIDE_X / OUT_CHANNELS / CHANNELS, r);
        Index from = group * p.weight_group + c * p.weight_c + (first_m + m) * p.weight_m;
        if (AXES > 1) from += row % KERNEL_Y * p.axis[Y].weight_stride;
        if (AXES > 2) from += row / KERNEL_Y * p.axis[0].weight_stride;
        const Accumulator one = k < 0 ? Accumulator{} : widen(weight[from + k * last.weight_stride]);
        shared.weight[row][at / AT_ONCE].of[at % AT_ONCE] = one;
        finite = finite && is_finite(one);
    }
    const bool all_finite = !__syncthreads_or(!finite);

#pragma unroll 1
    for (int tile = 0; tile < TILES; ++tile) {
        const Index begin = (block * TILES + tile) * THREADS;
        if (begin >= p.group_runs) break;
        const Mine mine = run_at(begin + threadIdx.x, p);
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
                if (x_vectors) {
#pragma unroll
                    for (int row = 0; row < ROWS_AT_ONCE; ++row)
#pragma unroll
                        for (int c = 0; c < CHANNELS; ++c)
                            load_vectors(x + (at[row] + c * p.x_c), there[row], mine.first,
                                         last.in_size, inputs[row][c]);
                } else {
#pragma unroll
                    for (int row = 0; row < ROWS_AT_ONCE; ++row)
#pragma unroll
                        for (int c = 0; c < CHANNELS; ++c)
                            load_elements(x + (at[row] + c * p.x_c), there[row], mine.first, last,
                                          inputs[row][c]);
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

        // Store row by row.  While one is on its way out, the next may already come in.
        const Index left = last.out_size.divisor - mine.o;
        const Index count = !mine.exists ? 0 : left < RUN ? left : RUN;
        const Index out_at = mine.n * p.out_n + channel * p.out_m + mine.z * out_z + mine.y * out_y
                           + mine.o * last.out_stride;
        const auto row_exists = [&](int phase) {
            return PHASES_Y == 1 || inside(mine.y + phase, p.axis[Y].out_size.divisor);
        };
#pragma unroll
        for (int row = 0; row < ROWS_OUT; ++row) {
            const int phase = row / OUT_CHANNELS, m = row % OUT_CHANNELS;
            const Accumulator added = bias ? widen(bias[(channel + m) * p.bias_m]) : Accumulator{};
            Passage& passage = shared.passage[row % 2];
            passage.run[threadIdx.x] = {out_at + phase * out_y + m * p.out_m,
                                        row_exists(phase) ? count : 0};
#pragma unroll
            for (int v = 0; v < OUT_VECTORS; ++v) {
                OutVector some;
#pragma unroll
                for (int e = 0; e < OUT_VECTOR; ++e)
                    finish(sum[phase][m][v * OUT_VECTOR + e], added, some.of[e]);
                passage.vector[place(threadIdx.x * OUT_VECTORS + v)] = some;
            }
            __syncthreads();
            if (out_vectors) {
#pragma unroll
                for (int k = 0; k < OUT_VECTORS; ++k) {
                    const int i = k * THREADS + threadIdx.x, e = i % OUT_VECTORS * OUT_VECTOR;
                    const Run run = passage.run[i / OUT_VECTORS];
                    if (e < run.count)
                        *reinterpret_cast<OutVector*>(out + (run.at + e)) = passage.vector[place(i)];
                }
            } else {
#pragma unroll 1
                for (int k = 0; k < RUN; ++k) {
                    const int i = k * THREADS + threadIdx.x, e = i % RUN;
                    const Run run = passage.run[i / RUN];
                    if (e < run.count)
                        out[run.at + e * last.out_stride] =
                            passage.vector[place(i / OUT_VECTOR)].of[i % OUT_VECTOR];
                }
            }
        }
        __syncthreads();

        // A zero in the place of something absent does no harm, but times infinity it is NaN.
        if (all_finite || whole) continue;
#pragma unroll 1
        for (int row = 0; row < ROWS_OUT; ++row) {
            const int phase = row / OUT_CHANNELS, m = row % OUT_CHANNELS;
            if (!row_exists(phase)) continue;
#pragma unroll 1
            for (Index e = 0; e < count; ++e) {
                Index q[AXES], r[AXES];
                if constexpr (AXES > 2) q[0] = mine.q_z, r[0] = mine.r_z;
                if constexpr (AXES > 1) q[Y] = mine.q_y, r[Y] = PHASES_Y > 1 ? phase : mine.r_y;
                q[AXES - 1] = mine.first + LAST_SHIFT + (FIRST_PHASE + e) / STRIDE_X;
                r[AXES - 1] = (FIRST_PHASE + e) % STRIDE_X;
                finish(one_output<1>(x, weight, p, mine.n, group, first_m + m, q, r),
                       bias ? widen(bias[(channel + m) * p.bias_m]) : Accumulator{},
                       out[out_at + phase * out_y + m * p.out_m + e * last.out_stride]);
            }
        }
    }
}
