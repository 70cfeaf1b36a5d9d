// gemm.cuh: a block's part of the transposed convolution as one matrix product on FMA units.
//
//     rows     (n, q)        every output with this q, in all phases, reads inputs around it
//     columns  (phase, m)    the outputs that share a q
//     sum over (shift, c)    x[n, c, q - shift] * weight[c, m, tap of the phase at the shift]
//
// A block computes ROWS x COLUMNS of one group, a thread THREAD_ROWS x THREAD_COLUMNS of those,
// over all channels or some.
// While it multiplies one step (a shift, DEPTH channels) in shared memory, the next is on its way.
// Where DEPTH does not divide the channels, the last step of a shift ends with the last channel, so it
// has some of the step before too, and multiplies those alone that are new.
// At the end each sum is handed out at o = (q - q_begin) * stride + r - r_begin, a pixel shuffle.
//
// The order of summation is gather's: shifts ascending, then channels.  With all channels the bits
// are the same.
// Absent inputs and taps are zeros in the tiles: a sum that is not finite may be wrong.
#pragma once

// 16 bytes of shared memory are read at once, so a thread's columns come in runs of that length,
// and so do its rows unless channels of one row are neighbours there.
constexpr int RUN = 16 / sizeof(Accumulator);
constexpr int ROW_RUN = X_VECTOR > 1 ? 1 : RUN < THREAD_ROWS ? RUN : THREAD_ROWS;
constexpr int COLUMN_RUN = RUN < THREAD_COLUMNS ? RUN : THREAD_COLUMNS;
constexpr int ROW_THREADS = ROWS / THREAD_ROWS;
constexpr int COLUMN_THREADS = COLUMNS / THREAD_COLUMNS;
static_assert(ROW_THREADS * COLUMN_THREADS == THREADS, "every thread has its part of the tile");

// Brings one operand's tile of a step, LENGTH rows or columns x DEPTH channels, into shared memory
// in two halves, with the multiplication of the step before in between: asynchronous copies, or
// loads into registers that are stored afterwards.  A thread copies the same places of every step,
// VECTOR neighbours at once.  Neighbours and lanes lie along what is near in memory: places, or
// channels.  If channels, they are side by side: the tile has vectors of them too, and a few places
// more to keep the banks apart, and all channels of a thread's place have one address.
template <int LENGTH, int VECTOR, bool CHANNELS_NEAR>
struct Operand {
    struct alignas(VECTOR * sizeof(Element)) Vector {
        Element element[VECTOR];
    };
    static constexpr int CHANNEL_VECTOR = CHANNELS_NEAR ? VECTOR : 1;
    static constexpr int PLACE_UNITS = CHANNELS_NEAR ? LENGTH : LENGTH / VECTOR;
    static constexpr int CHANNEL_UNITS = DEPTH / CHANNEL_VECTOR;
    static constexpr int NEAR = !CHANNELS_NEAR      ? PLACE_UNITS
                                : CHANNEL_UNITS < 4 ? CHANNEL_UNITS
                                                    : 4;
    static constexpr int FAR = THREADS < NEAR ? 1 : THREADS / NEAR;
    static constexpr int PLACES = CHANNELS_NEAR ? PLACE_UNITS / FAR
                                                : THREADS < NEAR ? NEAR / THREADS : 1;
    static constexpr int CHANNELS = CHANNEL_UNITS / (CHANNELS_NEAR ? NEAR : FAR);
    static constexpr int CHANNEL_STEP = CHANNELS_NEAR ? NEAR * VECTOR : FAR;  // between my channels
    static_assert(PLACES * CHANNELS * THREADS == PLACE_UNITS * CHANNEL_UNITS,
                  "every thread copies as much");

    static constexpr int LANES = 128 / (VECTOR * sizeof(Accumulator));  // are served together
    static constexpr int WIDTH = LENGTH + (CHANNELS_NEAR ? LANES / NEAR : 0);
    using Tile = Accumulator[CHANNEL_UNITS][WIDTH][CHANNEL_VECTOR];

    // My part of the next step is at from[d] + at[i].  Of these, the fewer advance.
    static constexpr int POINTERS = CHANNELS_NEAR ? 1 : CHANNELS;
    static constexpr bool PLACES_ADVANCE = PLACES <= POINTERS;
    const Element* from[POINTERS];
    Index at[PLACES];
    bool there[PLACES];              // at this shift
    Vector value[PLACES][CHANNELS];  // unused where the copies are asynchronous
    // Where my first copy goes in the tile.  Lanes along places lie side by side, row after row.
    int first = kept(CHANNELS_NEAR ? offset(channel(0), place(0)) : threadIdx.x * VECTOR);

    // A thread's number has no sign, so that a division of it is a shift.
    static __device__ __forceinline__ int place(int i)
    {
        const unsigned int thread = threadIdx.x;
        return CHANNELS_NEAR ? thread / NEAR + i * FAR : (thread % NEAR + i * THREADS) * VECTOR;
    }
    static __device__ __forceinline__ int channel(int d)
    {
        const unsigned int thread = threadIdx.x;
        return (CHANNELS_NEAR ? thread % NEAR * VECTOR : thread / NEAR) + d * CHANNEL_STEP;
    }
    static __device__ __forceinline__ int offset(unsigned int channel, int place)
    {
        return (channel / CHANNEL_VECTOR * WIDTH + place) * CHANNEL_VECTOR;
    }
    __device__ __forceinline__ const Vector* address(int i, int d) const
    {
        const Element* first = from[CHANNELS_NEAR ? 0 : d] + at[i];
        return reinterpret_cast<const Vector*>(first + (CHANNELS_NEAR ? d * CHANNEL_STEP : 0));
    }
    __device__ __forceinline__ Accumulator* to(Tile& tile, int i, int d) const
    {
        if constexpr (!ASYNC) return tile[channel(d) / CHANNEL_VECTOR][place(i)];
        return &tile[0][0][0] + first + offset(channel(d) - channel(0), place(i) - place(0));
    }

    // A new shift: find(place, at) says whether a place is there, and where in the array.
    template <typename Find>
    __device__ __forceinline__ void turn_to(const Element* array, Index stride, const Find& find)
    {
#pragma unroll
        for (int i = 0; i < PLACES; ++i) {
            there[i] = find(place(i), at[i]);
            if (!there[i]) at[i] = 0;
            at[i] += channel(0) * stride;
        }
#pragma unroll
        for (int d = 0; d < POINTERS; ++d) from[d] = array + d * CHANNEL_STEP * stride;
    }

    // Channels from `channels` on are not there; the next step begins `advance` channels later.
    __device__ __forceinline__ void begin(Index stride, Index channels, Index advance, Tile& tile)
    {
#pragma unroll
        for (int i = 0; i < PLACES; ++i) {
#pragma unroll
            for (int d = 0; d < CHANNELS; ++d) {
                const bool copy = there[i] && (!FEW_CHANNELS || channel(d) < channels);
                if constexpr (ASYNC)
                    copy_async_if<sizeof(Vector)>(copy, to(tile, i, d), address(i, d));
                else
                    value[i][d] = copy ? *address(i, d) : Vector{};
            }
        }
        const Index on = advance * stride;
#pragma unroll
        for (int i = 0; i < (PLACES_ADVANCE ? PLACES : 0); ++i) at[i] += on;
#pragma unroll
        for (int d = 0; d < (PLACES_ADVANCE ? 0 : POINTERS); ++d) from[d] += on;
    }

    __device__ __forceinline__ void end(Tile& tile)
    {
        if constexpr (!ASYNC) {
#pragma unroll
            for (int i = 0; i < PLACES; ++i)
#pragma unroll
                for (int d = 0; d < CHANNELS; ++d)
#pragma unroll
                    for (int v = 0; v < VECTOR; ++v)
                        to(tile, i, d)[v] = widen(value[i][d].element[v]);
        }
    }
};

struct Stage {
    alignas(16) Operand<ROWS, X_VECTOR, X_CHANNELS_LAST>::Tile x;
    alignas(16) Operand<COLUMNS, WEIGHT_VECTOR, false>::Tile weight;
};

// The sums pass through shared memory too, one run of every thread's columns at a time, so that
// neighbours among the threads store neighbours in memory.
constexpr int SPAN = COLUMN_THREADS * COLUMN_RUN;
constexpr int SPANS = COLUMNS / SPAN;
constexpr int PITCH = ROWS + (OUT_CHANNELS_LAST ? 1 : 0);

struct Shared {
    union {
        Stage stage[2];
        alignas(16) Accumulator sum[SPAN][PITCH];
    };
    Row row[ROWS];
    Column column[COLUMNS];
};
static_assert(sizeof(Shared) == SHARED_BYTES, "Python launches with SHARED_BYTES");

// A combination of shifts, one along each axis.
struct Shift {
    Index j[AXES];
};

// The channels that a block sums, within their group.
struct Channels {
    Index begin, count;
};

// Splits have whole steps, about as many each.
__device__ __forceinline__ Channels channels_of(Index split, const Division& splits,
                                                const Params& p)
{
    const Index steps = (p.C + DEPTH - 1) / DEPTH;
    const Index begin = quotient(steps * split, splits) * DEPTH;
    const Index end = quotient(steps * (split + 1), splits) * DEPTH;
    return {begin, (end < p.C ? end : p.C) - begin};
}

struct Loader {
    Operand<ROWS, X_VECTOR, X_CHANNELS_LAST> x;
    Operand<COLUMNS, WEIGHT_VECTOR, false> weight;

    __device__ __forceinline__ void turn_to(const Shift& shift, const Element* x_from,
                                            const Element* weight_from, const Params& p,
                                            const Shared& shared)
    {
        x.turn_to(x_from, p.x_c, [&](int i, Index& at) {
            return operand_at(shared.row[i], shift.j, p, at);
        });
        weight.turn_to(weight_from, p.weight_c, [&](int j, Index& at) {
            return operand_at(shared.column[j], shift.j, p, at);
        });
    }

    // Nothing is left to copy.
    __device__ __forceinline__ void rest()
    {
#pragma unroll
        for (int i = 0; i < x.PLACES; ++i) x.there[i] = false;
#pragma unroll
        for (int i = 0; i < weight.PLACES; ++i) weight.there[i] = false;
    }

    // The next step of `channels` that are left at this shift.
    __device__ __forceinline__ void begin(Index channels, const Params& p, Stage& stage)
    {
        const Index after = channels - DEPTH;
        const Index advance = after < DEPTH ? after : DEPTH;
        x.begin(p.x_c, channels, advance, stage.x);
        weight.begin(p.weight_c, channels, advance, stage.weight);
    }

    __device__ __forceinline__ void end(Stage& stage)
    {
        if constexpr (ASYNC) copy_async_commit();
        if constexpr (ASYNC) copy_async_wait<0>();
        x.end(stage.x);
        weight.end(stage.weight);
    }
};

// The shifts of one block, which skips those at which none of its columns has a tap.
struct Shifts {
    const Params& p;
    Index channels;
    const Column (&columns)[COLUMNS];

    __device__ __forceinline__ bool visited(const Shift& shift) const
    {
        const bool one_phase = p.phase_columns.divisor % COLUMNS == 0;
        for (int j = 0; j < (one_phase ? 1 : COLUMNS); ++j) {
            Index unused;
            if (operand_at(columns[j], shift.j, p, unused)) return true;
        }
        return false;
    }

    // Goes on to the first shift from here that is visited; false if there is none.
    __device__ __forceinline__ bool seek(Shift& shift) const
    {
        while (!visited(shift))
            if (!advance(shift.j, p)) return false;
        return true;
    }

    __device__ __forceinline__ bool first(Shift& shift) const
    {
        shift = {};
        return channels > 0 && seek(shift);
    }

    __device__ __forceinline__ bool next(Shift& shift) const
    {
        return advance(shift.j, p) && seek(shift);
    }
};

// My part of the tile.  A warp's lanes are 8 x 4 threads where the tile allows, so that they read
// few different places of shared memory.
struct Mine {
    static constexpr int LANE_COLUMNS = COLUMN_THREADS < 4 ? COLUMN_THREADS : 4;
    static constexpr int MOST_ROWS = 32 / LANE_COLUMNS;
    static constexpr int LANE_ROWS = ROW_THREADS < MOST_ROWS ? ROW_THREADS : MOST_ROWS;
    static constexpr int LANES = LANE_ROWS * LANE_COLUMNS;
    static constexpr int WARP_ROWS = ROW_THREADS / LANE_ROWS;
    int row_thread, column_thread;

    __device__ __forceinline__ explicit Mine(unsigned int thread)
    {
        const unsigned int lane = thread % LANES, warp = thread / LANES;
        row_thread = warp % WARP_ROWS * LANE_ROWS + lane % LANE_ROWS;
        column_thread = warp / WARP_ROWS * LANE_COLUMNS + lane / LANE_ROWS;
        if constexpr (ASYNC) {  // without, some kernels for sm_75 spill then
            row_thread = kept(row_thread);
            column_thread = kept(column_thread);
        }
    }
    __device__ __forceinline__ int row(int i) const
    {
        return (i / ROW_RUN * ROW_THREADS + row_thread) * ROW_RUN + i % ROW_RUN;
    }
    __device__ __forceinline__ int column(int j) const
    {
        return (j / COLUMN_RUN * COLUMN_THREADS + column_thread) * COLUMN_RUN + j % COLUMN_RUN;
    }
};

// Adds the products of X_VECTOR channels of a step, from c on, to my sums.
__device__ __forceinline__ void multiply(const Stage& stage, int c, const Mine& mine,
                                         Accumulator (&sum)[THREAD_ROWS][THREAD_COLUMNS])
{
    Accumulator x[THREAD_ROWS][X_VECTOR], weight[X_VECTOR][THREAD_COLUMNS];
#pragma unroll
    for (int i = 0; i < THREAD_ROWS; ++i)
#pragma unroll
        for (int v = 0; v < X_VECTOR; ++v) x[i][v] = stage.x[c / X_VECTOR][mine.row(i)][v];
#pragma unroll
    for (int v = 0; v < X_VECTOR; ++v)
#pragma unroll
        for (int j = 0; j < THREAD_COLUMNS; ++j)
            weight[v][j] = stage.weight[c + v][mine.column(j)][0];
#pragma unroll
    for (int i = 0; i < THREAD_ROWS; ++i)
#pragma unroll
        for (int v = 0; v < X_VECTOR; ++v)
#pragma unroll
            for (int j = 0; j < THREAD_COLUMNS; ++j)
                multiply_add(sum[i][j], x[i][v], weight[v][j]);
}

// Visits those outputs of a span that this thread hands out: visit(row, column, sum).  Neighbours among
// the threads have neighbours in memory.  `columns` counts those of the span that there are.  QUICK makes
// a loop of its own for whole rows.
template <bool QUICK, typename Visit>
__device__ __forceinline__ void visit_outputs(const Shared& shared, int span, Index columns,
                                              const Params& p, const Visit& visit)
{
    constexpr int UNROLL = QUICK ? 4 : 1;
    const Column* const column = shared.column + span * SPAN;
    if constexpr (OUT_CHANNELS_LAST) {
#pragma unroll 1
        for (int j = threadIdx.x % SPAN; j < columns; j += THREADS) {
            const Column mine = column[j];
#pragma unroll UNROLL
            for (int i = threadIdx.x / SPAN; i < ROWS; i += (THREADS + SPAN - 1) / SPAN) {
                const Row& row = shared.row[i];
                if (row.whole || is_output(row, mine, p)) visit(row, mine, shared.sum[j][i]);
            }
        }
    } else {
#pragma unroll 1
        for (int i = threadIdx.x % ROWS; i < ROWS; i += THREADS) {
            const Row mine = shared.row[i];
            int j = threadIdx.x / ROWS;
            constexpr int STEP = (THREADS + ROWS - 1) / ROWS;
            if (QUICK && mine.whole) {
#pragma unroll UNROLL
                for (; j < columns; j += STEP) visit(mine, column[j], shared.sum[j][i]);
            } else {
#pragma unroll 1
                for (; j < columns; j += STEP)
                    if (is_output(mine, column[j], p)) visit(mine, column[j], shared.sum[j][i]);
            }
        }
    }
}

// Sums some channels in one of the tiles, and leaves the sums to `outputs`, a span after the other.
template <typename Outputs>
__device__ __forceinline__ void matrix_product(Index block, const Channels& channels,
                                               const Element* __restrict__ x,
                                               const Element* __restrict__ weight,
                                               const Params& p, const Outputs& outputs)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());

    // Which tile is mine?  Neighbouring blocks have the same rows and share their inputs in L2.
    Index column_block, row_block;
    const Index rest = divide(block, p.column_blocks, column_block);
    const Index group = divide(rest, p.row_blocks, row_block);
    const Index x_at = (group * p.C + channels.begin) * p.x_c;
    const Index weight_at = group * p.weight_group + channels.begin * p.weight_c;
    for (int i = threadIdx.x; i < ROWS; i += THREADS)
        shared.row[i] = row_at(row_block * ROWS + i, x_at, p);
    for (int j = threadIdx.x; j < COLUMNS; j += THREADS)
        shared.column[j] = column_at(column_block * COLUMNS + j, group, weight_at, p);
    __syncthreads();

    const Shifts shifts = {p, channels.count, shared.column};
    const Mine mine(threadIdx.x);
    Accumulator sum[THREAD_ROWS][THREAD_COLUMNS] = {};
    Loader loader;
    Shift shift;
    if (shifts.first(shift)) {
        int now = 0;
        loader.turn_to(shift, x, weight, p, shared);
        loader.begin(channels.count, p, shared.stage[now]);
        loader.end(shared.stage[now]);
        __syncthreads();
        Index left = channels.count - DEPTH;  // of the channels at this shift
        // Multiplies what came last while the next is on its way.
        const auto step = [&](const auto& multiply_channels) {
            loader.begin(left, p, shared.stage[1 - now]);
            multiply_channels(shared.stage[now]);
            loader.end(shared.stage[1 - now]);
            __syncthreads();
            now = 1 - now;
            left -= DEPTH;
        };
        for (bool more = true;;) {
#pragma unroll 1
            while (!FEW_CHANNELS && left > 0)
                step([&](const Stage& stage) {
#pragma unroll
                    for (int c = 0; c < DEPTH; c += X_VECTOR) multiply(stage, c, mine, sum);
                });
            if (!more) break;
            const int fresh = left + DEPTH;  // channels among those that came last
            more = shifts.next(shift);
            left = more ? channels.count : 1;
            if (more)
                loader.turn_to(shift, x, weight, p, shared);
            else
                loader.rest();  // in a last round, which multiplies what came last
            if (FEW_CHANNELS || fresh < DEPTH)
                step([&](const Stage& stage) {
                    const int end = FEW_CHANNELS ? fresh : DEPTH;
#pragma unroll 1
                    for (int c = end - fresh; c < end; c += X_VECTOR)
                        multiply(stage, c, mine, sum);
                });
        }
    }

    const Index columns = columns_from(column_block * COLUMNS, p);
#pragma unroll 1
    for (int span = 0; span < SPANS; ++span) {
        if (span) __syncthreads();
#pragma unroll
        for (int j = 0; j < THREAD_COLUMNS; ++j) {
            if (j / COLUMN_RUN != span) continue;
            const Accumulator added = outputs.added(shared.column[mine.column(j)]);
#pragma unroll
            for (int i = 0; i < THREAD_ROWS; ++i) {
                add(sum[i][j], added);
                shared.sum[mine.column(j % COLUMN_RUN)][mine.row(i)] = sum[i][j];
            }
        }
        __syncthreads();
        const Index left = columns - span * SPAN;
        outputs.hand_out(shared, span, left < SPAN ? left : SPAN);
    }
}
