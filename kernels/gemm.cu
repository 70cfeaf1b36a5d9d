// gemm: the whole transposed convolution as one matrix product on FMA units.
//
//     rows     (n, q)        every output with this q, in all phases, reads inputs around it
//     columns  (phase, m)    the outputs that share a q
//     sum over (shift, c)    x[n, c, q - shift] * weight[c, m, tap of the phase at the shift]
//
// A block computes ROWS x COLUMNS of one group, a thread THREAD_ROWS x THREAD_COLUMNS of those.
// While it multiplies one step (a shift, DEPTH channels) in shared memory, the next is on its way.
// At the end each sum is stored at o = (q - q_begin) * stride + r - r_begin, a pixel shuffle.
//
// The order of summation is gather's: shifts ascending, then channels.  The bits are the same.
// Absent inputs and taps are zeros in the tiles; a sum that is not finite is computed anew without.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"

// 16 bytes of shared memory are read at once, so a thread's rows come in runs of that length.
constexpr int RUN = 16 / sizeof(Accumulator);
constexpr int ROW_RUN = RUN < THREAD_ROWS ? RUN : THREAD_ROWS;
constexpr int COLUMN_RUN = RUN < THREAD_COLUMNS ? RUN : THREAD_COLUMNS;
constexpr int ROW_THREADS = ROWS / THREAD_ROWS;
constexpr int COLUMN_THREADS = COLUMNS / THREAD_COLUMNS;
static_assert(ROW_THREADS * COLUMN_THREADS == THREADS, "every thread has its part of the tile");

// Channels-last tiles are transposed on their way in; a few rows more keep the banks apart.
constexpr int PADDING = X_CHANNELS_LAST ? RUN : 0;

constexpr int X_LOADS = ROWS * DEPTH / THREADS;
constexpr int WEIGHT_LOADS = COLUMNS * DEPTH / THREADS;
static_assert(X_LOADS * THREADS == ROWS * DEPTH && WEIGHT_LOADS * THREADS == COLUMNS * DEPTH,
              "every thread loads the same number of elements");

struct Stage {
    alignas(16) Accumulator x[DEPTH][ROWS + PADDING];
    alignas(16) Accumulator weight[DEPTH][COLUMNS];
};

struct Row {
    Index n;  // -1 beyond the last row
    Index q[AXES];
};

struct Column {
    Index m;  // -1 where a phase is filled up, and beyond the last column
    Index r[AXES];
};

struct Shared {
    Stage stage[2];
    Row row[ROWS];
    Column column[COLUMNS];
};
static_assert(sizeof(Shared) == SHARED_BYTES, "Python launches with SHARED_BYTES");

// One step of the sum: a combination of shifts, and the first of DEPTH channels.
struct Step {
    Index j[AXES];
    Index c;
};

__device__ __forceinline__ Row row_at(Index index, const Params& p)
{
    Row row = {-1, {}};
    if (index >= p.rows) return row;
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) {
        index = divide(index, p.axis[a].q_size, row.q[a]);
        row.q[a] += p.axis[a].q_begin;
    }
    row.n = index;
    return row;
}

__device__ __forceinline__ Column column_at(Index index, const Params& p)
{
    Column column = {-1, {}};
    Index m;
    index = divide(index, p.phase_columns, m);
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) {
        Index phase;
        index = divide(index, p.axis[a].phases, phase);
        divide(phase + p.axis[a].r_begin, p.axis[a].stride, column.r[a]);
    }
    if (index == 0 && m < p.M.divisor) column.m = m;
    return column;
}

// Is there an input at this row and shift?  Adds its offset to `at`.
__device__ __forceinline__ bool input_at(const Row& row, const Step& step, const Params& p,
                                         Index& at)
{
    bool there = row.n >= 0;
    at += row.n * p.x_n;
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        const Index i = row.q[a] - shift_of(p.axis[a], step.j[a]);
        there = there && inside(i, p.axis[a].in_size);
        at += i * p.axis[a].x_stride;
    }
    return there;
}

// Is there a tap at this column and shift?  Adds its offset to `at`.
__device__ __forceinline__ bool tap_at(const Column& column, const Step& step, const Params& p,
                                       Index& at)
{
    bool there = column.m >= 0;
    at += column.m * p.weight_m;
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        const Index k = tap_of(p.axis[a], shift_of(p.axis[a], step.j[a]), column.r[a]);
        there = there && k >= 0;
        at += k * p.axis[a].weight_stride;
    }
    return there;
}

// Brings one step's tiles into shared memory in two halves, with the multiplication of the step
// before in between: asynchronous copies, or loads into registers that are stored afterwards.
struct Loader {
    Accumulator x[X_LOADS], weight[WEIGHT_LOADS];  // unused where the copies are asynchronous

    static __device__ __forceinline__ int element(int load) { return load * THREADS + threadIdx.x; }

    // Lanes run along what is near in memory: channels or rows.
    static __device__ __forceinline__ int x_row(int e)
    {
        return X_CHANNELS_LAST ? e / DEPTH : e % ROWS;
    }
    static __device__ __forceinline__ int x_c(int e)
    {
        return X_CHANNELS_LAST ? e % DEPTH : e / ROWS;
    }

    static __device__ __forceinline__ void fetch(const Element* from, Index at, bool there,
                                                 Accumulator& to, Accumulator& value)
    {
        if constexpr (ASYNC)
            copy_async<sizeof(Element)>(&to, from + at, there ? sizeof(Element) : 0);
        else
            value = there ? widen(from[at]) : Accumulator{};
    }

    __device__ __forceinline__ void begin(const Element* x_from, const Element* weight_from,
                                          const Step& step, const Params& p, Shared& shared,
                                          Stage& stage)
    {
#pragma unroll
        for (int load = 0; load < X_LOADS; ++load) {
            const int row = x_row(element(load)), c = x_c(element(load));
            Index at = (step.c + c) * p.x_c;
            const bool there = input_at(shared.row[row], step, p, at) && step.c + c < p.C;
            fetch(x_from, at, there, stage.x[c][row], x[load]);
        }
#pragma unroll
        for (int load = 0; load < WEIGHT_LOADS; ++load) {
            const int column = element(load) % COLUMNS, c = element(load) / COLUMNS;
            Index at = (step.c + c) * p.weight_c;
            const bool there = tap_at(shared.column[column], step, p, at) && step.c + c < p.C;
            fetch(weight_from, at, there, stage.weight[c][column], weight[load]);
        }
    }

    __device__ __forceinline__ void end(Stage& stage)
    {
        if constexpr (ASYNC) {
            copy_async_commit();
            copy_async_wait<0>();
        } else {
#pragma unroll
            for (int load = 0; load < X_LOADS; ++load)
                stage.x[x_c(element(load))][x_row(element(load))] = x[load];
#pragma unroll
            for (int load = 0; load < WEIGHT_LOADS; ++load)
                stage.weight[element(load) / COLUMNS][element(load) % COLUMNS] = weight[load];
        }
    }
};

// The steps of one block.  Blocks of a single phase skip the shifts at which it has no tap.
struct Steps {
    const Params& p;
    const Column& column;  // any of the block's

    __device__ __forceinline__ bool visited(const Step& step) const
    {
        if (p.phase_columns.divisor % COLUMNS != 0) return true;
        bool there = true;
#pragma unroll
        for (int a = 0; a < AXES; ++a)
            there = there && tap_of(p.axis[a], shift_of(p.axis[a], step.j[a]), column.r[a]) >= 0;
        return there;
    }

    __device__ __forceinline__ bool seek(Step& step) const
    {
        while (!visited(step))
            if (!advance(step.j, p)) return false;
        return true;
    }

    __device__ __forceinline__ bool first(Step& step) const
    {
        step = {};
        return p.C > 0 && seek(step);
    }

    __device__ __forceinline__ bool next(Step& step) const
    {
        step.c += DEPTH;
        if (step.c < p.C) return true;
        step.c = 0;
        return advance(step.j, p) && seek(step);
    }
};

// My part of the tile.  Lanes run along what is near in the result's memory.
struct Mine {
    int row_thread, column_thread;

    __device__ __forceinline__ explicit Mine(int thread)
        : row_thread(OUT_CHANNELS_LAST ? thread / COLUMN_THREADS : thread % ROW_THREADS),
          column_thread(OUT_CHANNELS_LAST ? thread % COLUMN_THREADS : thread / ROW_THREADS)
    {
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

// Adds one step's products to my sums.
__device__ __forceinline__ void multiply(const Stage& stage, const Mine& mine,
                                         Accumulator (&sum)[THREAD_ROWS][THREAD_COLUMNS])
{
#pragma unroll 4
    for (int c = 0; c < DEPTH; ++c) {
        Accumulator x[THREAD_ROWS], weight[THREAD_COLUMNS];
#pragma unroll
        for (int i = 0; i < THREAD_ROWS; ++i) x[i] = stage.x[c][mine.row(i)];
#pragma unroll
        for (int j = 0; j < THREAD_COLUMNS; ++j) weight[j] = stage.weight[c][mine.column(j)];
#pragma unroll
        for (int i = 0; i < THREAD_ROWS; ++i)
#pragma unroll
            for (int j = 0; j < THREAD_COLUMNS; ++j) multiply_add(sum[i][j], x[i], weight[j]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
gemm(const Element* __restrict__ x, const Element* __restrict__ weight,
     const Element* __restrict__ bias, Element* __restrict__ out, const Params p)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());

    // Which tile is mine?  Neighbouring blocks have the same rows and share their inputs in L2.
    Index column_block, row_block;
    const Index rest = divide(static_cast<Index>(blockIdx.x), p.column_blocks, column_block);
    const Index group = divide(rest, p.row_blocks, row_block);
    const Element* const group_x = x + group * p.C * p.x_c;
    const Element* const group_weight = weight + group * p.C * p.weight_c;
    for (int i = threadIdx.x; i < ROWS; i += THREADS)
        shared.row[i] = row_at(row_block * ROWS + i, p);
    for (int j = threadIdx.x; j < COLUMNS; j += THREADS)
        shared.column[j] = column_at(column_block * COLUMNS + j, p);
    __syncthreads();

    const Steps steps = {p, shared.column[0]};
    const Mine mine(threadIdx.x);
    Accumulator sum[THREAD_ROWS][THREAD_COLUMNS] = {};
    Loader loader;
    Step ahead;
    bool more = steps.first(ahead);
    if (more) {
        loader.begin(group_x, group_weight, ahead, p, shared, shared.stage[0]);
        loader.end(shared.stage[0]);
    }
    __syncthreads();
    for (int now = 0; more; now ^= 1) {
        more = steps.next(ahead);
        if (more) loader.begin(group_x, group_weight, ahead, p, shared, shared.stage[now ^ 1]);
        multiply(shared.stage[now], mine, sum);
        if (more) loader.end(shared.stage[now ^ 1]);
        __syncthreads();
    }

    // The pixel shuffle: each finite sum goes to the output of its q and its phase.
    Index phase[THREAD_COLUMNS][AXES], phase_at[THREAD_COLUMNS];
    bool exists[THREAD_COLUMNS];
    Accumulator added[THREAD_COLUMNS];
    unsigned long long astray = 0;
    static_assert(THREAD_ROWS * THREAD_COLUMNS <= 64, "one bit for each of my sums");
#pragma unroll
    for (int j = 0; j < THREAD_COLUMNS; ++j) {
        const Column& column = shared.column[mine.column(j)];
        const Index channel = group * p.M.divisor + column.m;
        phase_at[j] = channel * p.out_m;
#pragma unroll
        for (int a = 0; a < AXES; ++a) {
            phase[j][a] = column.r[a] - p.axis[a].r_begin;
            phase_at[j] += phase[j][a] * p.axis[a].out_stride;
        }
        exists[j] = column.m >= 0;
        added[j] = bias && exists[j] ? widen(bias[channel * p.bias_m]) : Accumulator{};
    }
#pragma unroll
    for (int i = 0; i < THREAD_ROWS; ++i) {
        const Row& row = shared.row[mine.row(i)];
        if (row.n < 0) continue;
        Index o[AXES], row_at = row.n * p.out_n;
#pragma unroll
        for (int a = 0; a < AXES; ++a) {
            o[a] = (row.q[a] - p.axis[a].q_begin) * p.axis[a].stride.divisor;
            row_at += o[a] * p.axis[a].out_stride;
        }
#pragma unroll
        for (int j = 0; j < THREAD_COLUMNS; ++j) {
            bool there = exists[j];
#pragma unroll
            for (int a = 0; a < AXES; ++a)
                there = there && inside(o[a] + phase[j][a], p.axis[a].out_size.divisor);
            if (there && is_finite(sum[i][j]))
                finish(sum[i][j], added[j], out[row_at + phase_at[j]]);
            else if (there)
                astray |= 1ull << (i * THREAD_COLUMNS + j);
        }
    }

    // The others: infinity or NaN may have met the zero of something absent.
    for (int e = 0; astray; ++e, astray >>= 1) {
        if (!(astray & 1)) continue;
        const Row& row = shared.row[mine.row(e / THREAD_COLUMNS)];
        const Column& column = shared.column[mine.column(e % THREAD_COLUMNS)];
        const Index channel = group * p.M.divisor + column.m;
        Index out_at = row.n * p.out_n + channel * p.out_m;
#pragma unroll
        for (int a = 0; a < AXES; ++a) {
            const Axis& axis = p.axis[a];
            out_at += ((row.q[a] - axis.q_begin) * axis.stride.divisor + column.r[a]
                       - axis.r_begin) * axis.out_stride;
        }
        finish(one_output(x, weight, p, row.n, group, column.m, row.q, column.r),
               bias ? widen(bias[channel * p.bias_m]) : Accumulator{}, out[out_at]);
    }
}
