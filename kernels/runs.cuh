// Runs: neighbouring outputs along the last axis that one thread computes, for the kernels that know
// the window at compile time.
//
// A run is all phases of RUN_Q neighbouring q, in PHASES_Y rows and for OUT_CHANNELS channels.  The
// inputs of a row lie in registers and each sum names its own.  Weights are read from shared memory,
// each once for RUN_Q products.
#pragma once

// --- a run at compile time ----------------------------------------------------------------------

constexpr int PHASES_X = WindowX::PHASES, SHIFTS_X = WindowX::SHIFTS;
constexpr int RUN = RUN_Q * PHASES_X;
constexpr int SHIFTS_Y = WindowY::SHIFTS, SHIFTS_Z = WindowZ::SHIFTS;

// A run begins with phase FIRST_PHASE; its e-th output has this q, counted from the first, and r.
__device__ constexpr int q_of(int e) { return (FIRST_PHASE + e) / PHASES_X; }
__device__ constexpr int r_of(int e) { return (FIRST_PHASE + e) % PHASES_X; }

// The inputs that the windows of a run cover.
constexpr int INPUTS = WindowX::IN_STRIDE * q_of(RUN - 1) + 1 + WindowX::LAST_SHIFT;

// A bit for each input.
static_assert(INPUTS < 64, "one bit for each input");
template <bool MANY>
struct BitsOf {
    using Type = unsigned int;
};
template <>
struct BitsOf<true> {
    using Type = unsigned long long;
};
using Bits = BitsOf<(INPUTS > 31)>::Type;

// Those that a product needs; a dilated window leaves some out.
__device__ constexpr Bits inputs_read()
{
    Bits read = 0;
    for (int e = 0; e < RUN; ++e)
        for (int j = 0; j < SHIFTS_X; ++j)
            if (WindowX::tap(j, r_of(e)) >= 0)
                read |= Bits{1} << WindowX::input(q_of(e), j);
    return read;
}
constexpr Bits INPUTS_READ = inputs_read();

__device__ __forceinline__ constexpr bool is_read(int input)
{
    return INPUTS_READ >> input & 1;
}

// --- which run is mine? -------------------------------------------------------------------------

// A run on its way from its number to its outputs.
struct Mine : OutRow {
    Index q, o;   // along the last axis: the first q, and the first output
    Index first;  // input
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
    mine.q = p.axis[AXES - 1].q_begin + run * RUN_Q;
    mine.first = WindowX::first(mine.q, p.axis[AXES - 1]);
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

__device__ __forceinline__ bool x_in_vectors(const Params& p)
{
    const Axis& last = p.axis[AXES - 1];
    const Index y = AXES > 1 ? p.axis[Y].x_stride : 0, z = AXES > 2 ? p.axis[0].x_stride : 0;
    return X_IN_WORDS && in_vectors(X_VECTOR, p.x_n, p.x_c, y, z, last.x_stride, last.in_size);
}

// --- one step of the sum ------------------------------------------------------------------------

// The first input of a run is the X_LEAD-th element of a vector.
constexpr int X_VECTORS = (X_LEAD + INPUTS - 1) / X_VECTOR + 1;

// A thread's inputs of a row: where they begin in it, and one bit for each vector, or each element,
// that lies within.
struct Inputs {
    Index begin;
    Bits present;
};

// The bits of those of COUNT neighbours that lie within an axis, of which the first is this one.
template <int COUNT>
__device__ __forceinline__ Bits bits_within(Index first, Index size)
{
    const auto below = [](Index n) { return (Bits{1} << (n < 0 ? 0 : n < COUNT ? n : COUNT)) - 1; };
    return below(size - first) & ~below(-first);
}

// How far apart in memory the inputs of a row are; where they are neighbours, the compiler knows.
__device__ __forceinline__ Index x_step(const Axis& last)
{
    return X_NEAREST ? 1 : last.x_stride;
}

__device__ __forceinline__ Inputs inputs_at(Index first, bool vectors, const Axis& last)
{
    if (!vectors)
        return {first * x_step(last), bits_within<INPUTS>(first, last.in_size) & INPUTS_READ};
    const Index begin = first - X_LEAD;
    return {begin, bits_within<X_VECTORS>(begin / X_VECTOR, last.in_size / X_VECTOR)};
}

// Loads the inputs of a run from one row, in vectors or one by one.  What is not there stays as it
// was: zero, from the beginning.
__device__ __forceinline__ void load_vectors(const Element* __restrict__ from,
                                             Bits present,
                                             XWords (&to)[X_VECTORS])
{
#pragma unroll
    for (int v = 0; v < X_VECTORS; ++v)
        if (present >> v & 1) to[v] = *reinterpret_cast<const XWords*>(from + v * X_VECTOR);
}

__device__ __forceinline__ void take_apart(const XWords (&vectors)[X_VECTORS],
                                           Accumulator (&to)[INPUTS])
{
#pragma unroll
    for (int input = 0; input < INPUTS; ++input) {
        const int at = X_LEAD + input;
        if (is_read(input)) to[input] = widen(element(vectors[at / X_VECTOR], at % X_VECTOR));
    }
}

__device__ __forceinline__ void load_elements(const Element* __restrict__ from, Index stride,
                                              Bits present,
                                              XWords (&to)[X_VECTORS])
{
#pragma unroll
    for (int input = 0; input < INPUTS; ++input) {
        const int at = X_LEAD + input;
        if (present >> input & 1) put(to[at / X_VECTOR], at % X_VECTOR, from[input * stride]);
    }
}

// Weights of one row of taps, in the order in which they are needed.
using WeightVector = Vector<Accumulator, 16 / sizeof(Accumulator)>;
constexpr int WEIGHTS = SHIFTS_X * CHANNELS * OUT_CHANNELS * PHASES_X;
constexpr int AT_ONCE = sizeof(WeightVector) / sizeof(Accumulator);
constexpr int WEIGHT_VECTORS = (WEIGHTS + AT_ONCE - 1) / AT_ONCE;
struct WeightPlace {
    int j, c, m, r;
};
__device__ __forceinline__ constexpr WeightPlace weight_place(int at)
{
    return {at / PHASES_X / OUT_CHANNELS / CHANNELS, at / PHASES_X / OUT_CHANNELS % CHANNELS,
            at / PHASES_X % OUT_CHANNELS, at % PHASES_X};
}

// Fetches the weight at this place of a row of taps, of which there are so many; else 0.
__device__ __forceinline__ Accumulator fetch_weight(const Element* __restrict__ weight, Index from,
                                                    int row, int at, Index taps, const Params& p)
{
    const WeightPlace place = weight_place(at);
    const int k = WindowX::tap(place.j, place.r);
    from += place.c * p.weight_c + place.m * p.weight_m;
    if (AXES > 1) from += row % KERNEL_Y * p.axis[Y].weight_stride;
    if (AXES > 2) from += row / KERNEL_Y * p.axis[0].weight_stride;
    if (k < 0 || k >= taps) return {};
    return widen(weight[from + k * p.axis[AXES - 1].weight_stride]);
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
        const WeightPlace place = weight_place(at);
        if (WindowX::tap(place.j, place.r) < 0) continue;
#pragma unroll
        for (int e = 0; e < RUN; ++e)
            if (r_of(e) == place.r)
                multiply_add(sum[place.m][e], x[place.c][WindowX::input(q_of(e), place.j)],
                             some.of[at % AT_ONCE]);
    }
}

// --- the way out --------------------------------------------------------------------------------

constexpr int ROWS_OUT = PHASES_Y * OUT_CHANNELS;

// A row of a thread's outputs.
struct Run {
    Index at, count;  // the place of the first output, and how many there are
};

// A thread's outputs in its first row and channel.
__device__ __forceinline__ Run outputs_of(const Mine& mine, Index channel, const Params& p)
{
    const Axis& last = p.axis[AXES - 1];
    const Index left = last.out_size.divisor - mine.o;
    Index at = mine.n * p.out_n + channel * p.out_m + mine.o * last.out_stride;
    if (AXES > 1) at += mine.y * p.axis[Y].out_stride;
    if (AXES > 2) at += mine.z * p.axis[0].out_stride;
    return {at, !mine.exists ? 0 : left < RUN ? left : RUN};
}

// The same in another row and channel of this thread.
__device__ __forceinline__ Run outputs_of(Run first, const Mine& mine, int phase, int m,
                                          const Params& p)
{
    Run run = {first.at + m * p.out_m, first.count};
    if (PHASES_Y == 1) return run;
    run.at += phase * p.axis[Y].out_stride;
    if (!inside(mine.y + phase, p.axis[Y].out_size.divisor)) run.count = 0;
    return run;
}

// Stores what the definition says instead of my outputs, once they are stored.
__device__ __forceinline__ void compute_anew(const Element* __restrict__ x,
                                             const Element* __restrict__ weight,
                                             const Element* __restrict__ bias,
                                             Element* __restrict__ out, const Mine& mine,
                                             Index group, Index first_m, const Params& p)
{
    const Index channel = group * p.M.divisor + first_m;
    const Run first = outputs_of(mine, channel, p);
#pragma unroll 1
    for (int row = 0; row < ROWS_OUT; ++row) {
        const int phase = row / OUT_CHANNELS, m = row % OUT_CHANNELS;
        const Run run = outputs_of(first, mine, phase, m, p);
#pragma unroll 1
        for (Index e = 0; e < run.count; ++e) {
            Index q[AXES], r[AXES];
            if constexpr (AXES > 2) q[0] = mine.q_z, r[0] = mine.r_z;
            if constexpr (AXES > 1) q[Y] = mine.q_y, r[Y] = PHASES_Y > 1 ? phase : mine.r_y;
            q[AXES - 1] = mine.q + (FIRST_PHASE + e) / PHASES_X;
            r[AXES - 1] = (FIRST_PHASE + e) % PHASES_X;
            finish(one_output<1>(x, weight, p, mine.n, group, first_m + m, q, r),
                   bias ? widen(bias[(channel + m) * p.bias_m]) : Accumulator{},
                   out[run.at + e * p.axis[AXES - 1].out_stride]);
        }
    }
}
