// weight_gradient: the gradient of the weight as one matrix product on FMA units.
//
//     rows      c             the input channels of a group
//     columns   (tap, m)      the taps, and the output channels of the group
//     sum over  (n, i)        x[n, c, i] * y[n, m, i*stride + k*dilation - pad_begin]
//
// A block computes ROWS x COLUMNS of one group over one split, a thread THREAD_ROWS x
// THREAD_COLUMNS of those.  While it multiplies one step (DEPTH positions) in shared memory, the
// next is on its way, and the one after that is looked up.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "weight_gradient.cuh"

// 16 bytes of shared memory are read at once, so a thread's rows come in runs of that length.
constexpr int RUN = 16 / sizeof(Accumulator);
constexpr int ROW_RUN = RUN < THREAD_ROWS ? RUN : THREAD_ROWS;
constexpr int COLUMN_RUN = RUN < THREAD_COLUMNS ? RUN : THREAD_COLUMNS;
constexpr int ROW_THREADS = ROWS / THREAD_ROWS;
constexpr int COLUMN_THREADS = COLUMNS / THREAD_COLUMNS;
static_assert(ROW_THREADS * COLUMN_THREADS == THREADS, "every thread has its part of the tile");

constexpr int X_LOADS = ROWS * DEPTH / THREADS;
constexpr int Y_LOADS = COLUMNS * DEPTH / THREADS;
static_assert(X_LOADS * THREADS == ROWS * DEPTH && Y_LOADS * THREADS == COLUMNS * DEPTH,
              "every thread loads the same number of elements");

constexpr int LONGEST = 256;            // terms that are added to one sum
constexpr int STEPS = LONGEST / DEPTH;  // which is so many steps

// A run more in each line keeps the banks apart where tiles are transposed on their way in.
struct Stage {
    alignas(16) Accumulator x[DEPTH][ROWS + RUN];
    alignas(16) Accumulator y[DEPTH][COLUMNS + RUN];
};

struct Shared {
    Stage stage[2];
    Position position[2][DEPTH];
    Column column[COLUMNS];
};
static_assert(sizeof(Shared) == SHARED_BYTES, "Python launches with SHARED_BYTES");

// What a block computes.
struct Block {
    const Element *x, *y;  // of its group
    Index c, channels;     // its first row, and how many the group has
    Index first, last;     // its split

    __device__ __forceinline__ void look_up(Index step, const GradientParams& p,
                                            Position (&position)[DEPTH]) const
    {
        const Index index = first + step * DEPTH + threadIdx.x;
        if (threadIdx.x < DEPTH)
            position[threadIdx.x] = index < last ? position_at(index, p) : Position{};
    }
};

// Brings one step's tiles into shared memory in two halves, with the multiplication of the step
// before in between: asynchronous copies, or loads into registers that are stored afterwards.
struct Loader {
    Accumulator x[X_LOADS], y[Y_LOADS];  // unused where the copies are asynchronous

    // Lanes run along what is near in memory: channels or positions.
    template <bool CHANNELS_LAST, int CHANNELS>
    static __device__ __forceinline__ void split(int load, int& channel, int& d)
    {
        const int element = load * THREADS + threadIdx.x;
        channel = CHANNELS_LAST ? element % CHANNELS : element / DEPTH;
        d = CHANNELS_LAST ? element / CHANNELS : element % DEPTH;
    }

    static __device__ __forceinline__ void fetch(const Element* from, Index at, bool there,
                                                 Accumulator& to, Accumulator& value)
    {
        if constexpr (ASYNC)
            copy_async<sizeof(Element)>(&to, from + (there ? at : 0), there ? sizeof(Element) : 0);
        else
            value = there ? widen(from[at]) : Accumulator{};
    }

    __device__ __forceinline__ void begin(const Block& block, const Position (&position)[DEPTH],
                                          const Column (&column)[COLUMNS],
                                          const GradientParams& p, Stage& stage)
    {
#pragma unroll
        for (int load = 0; load < X_LOADS; ++load) {
            int row, d;
            split<X_CHANNELS_LAST, ROWS>(load, row, d);
            const bool there = position[d].there && block.c + row < block.channels;
            fetch(block.x, position[d].x_at + row * p.x_c, there, stage.x[d][row], x[load]);
        }
#pragma unroll
        for (int load = 0; load < Y_LOADS; ++load) {
            int j, d;
            split<OUT_CHANNELS_LAST, COLUMNS>(load, j, d);
            const bool there = meets(position[d], column[j], p);
            fetch(block.y, position[d].y_at + column[j].y_at, there, stage.y[d][j], y[load]);
        }
    }

    __device__ __forceinline__ void end(Stage& stage)
    {
        if constexpr (ASYNC) {
            copy_async_commit();
            copy_async_wait<0>();
        } else {
            int channel, d;
#pragma unroll
            for (int load = 0; load < X_LOADS; ++load) {
                split<X_CHANNELS_LAST, ROWS>(load, channel, d);
                stage.x[d][channel] = x[load];
            }
#pragma unroll
            for (int load = 0; load < Y_LOADS; ++load) {
                split<OUT_CHANNELS_LAST, COLUMNS>(load, channel, d);
                stage.y[d][channel] = y[load];
            }
        }
    }
};

// My part of the tile.
struct Mine {
    int row_thread, column_thread;

    __device__ __forceinline__ explicit Mine(int thread)
        : row_thread(thread / COLUMN_THREADS), column_thread(thread % COLUMN_THREADS)
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

__device__ __forceinline__ void multiply(const Stage& stage, const Mine& mine,
                                         Accumulator (&sum)[THREAD_ROWS][THREAD_COLUMNS])
{
    Accumulator x[THREAD_ROWS], y[THREAD_COLUMNS];
#pragma unroll 4
    for (int d = 0; d < DEPTH; ++d) {
#pragma unroll
        for (int i = 0; i < THREAD_ROWS; ++i) x[i] = stage.x[d][mine.row(i)];
#pragma unroll
        for (int j = 0; j < THREAD_COLUMNS; ++j) y[j] = stage.y[d][mine.column(j)];
#pragma unroll
        for (int i = 0; i < THREAD_ROWS; ++i)
#pragma unroll
            for (int j = 0; j < THREAD_COLUMNS; ++j) multiply_add(sum[i][j], x[i], y[j]);
    }
}

// One sum by definition, without what is absent: the tile's zero times infinity is NaN.
__device__ __forceinline__ Accumulator one_sum(const Block& block, Index row, const Column& column,
                                            const GradientParams& p)
{
    Accumulator total = {};
    for (Index begin = block.first; begin < block.last; begin += LONGEST) {
        Accumulator sum = {};
        const Index end = min_of(begin + LONGEST, block.last);
        for (Index index = begin; index < end; ++index) {
            const Position position = position_at(index, p);
            if (meets(position, column, p))
                multiply_add(sum, widen(block.x[position.x_at + row * p.x_c]),
                             widen(block.y[position.y_at + column.y_at]));
        }
        add(total, sum);
    }
    return total;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
weight_gradient(const Element* __restrict__ x, const Element* __restrict__ y,
                Element*, Element*, Accumulator* __restrict__ workspace, const GradientParams p)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());
    if (static_cast<Index>(blockIdx.x) >= p.weight_blocks)
        return sum_bias(y, workspace, blockIdx.x - p.weight_blocks, p,
                        reinterpret_cast<Accumulator*>(&shared));

    // Which sums are mine, over which positions?
    Index column_block, row_block, split;
    Index group = divide(static_cast<Index>(blockIdx.x), p.column_blocks, column_block);
    group = divide(group, p.row_blocks, row_block);
    group = divide(group, p.splits, split);
    const Index c_begin = row_block * ROWS, first = split * p.split_positions;
    const Block block = {x + (group * p.C + c_begin) * p.x_c, y + group * p.M.divisor * p.y_m,
                         c_begin, p.C, first, min_of(first + p.split_positions, p.positions)};
    const Index steps = (block.last - first + DEPTH - 1) / DEPTH;
    for (int j = threadIdx.x; j < COLUMNS; j += THREADS)
        shared.column[j] = column_at(column_block * COLUMNS + j, p);
    block.look_up(0, p, shared.position[0]);
    __syncthreads();

    const Mine mine(threadIdx.x);
    Accumulator* const parts =
        weight_parts(workspace, split, p) + (group * p.C + c_begin) * p.columns;
    Accumulator sum[THREAD_ROWS][THREAD_COLUMNS] = {};
    Loader loader;
    loader.begin(block, shared.position[0], shared.column, p, shared.stage[0]);
    block.look_up(1, p, shared.position[1]);
    loader.end(shared.stage[0]);
    __syncthreads();
    bool more = true;
    for (Index step = 0; more; ++step) {
        const int now = step & 1, next = now ^ 1;
        more = step + 1 < steps;
        if (more) loader.begin(block, shared.position[next], shared.column, p, shared.stage[next]);
        block.look_up(step + 2, p, shared.position[now]);
        multiply(shared.stage[now], mine, sum);
        if (more) loader.end(shared.stage[next]);
        if (!more || (step + 1) % STEPS == 0) {
            // Nobody else touches my parts.
            const bool anew = step < STEPS;
#pragma unroll
            for (int i = 0; i < THREAD_ROWS; ++i) {
#pragma unroll
                for (int j = 0; j < THREAD_COLUMNS; ++j) {
                    const Index row = mine.row(i);
                    const Column& column = shared.column[mine.column(j)];
                    if (c_begin + row < p.C && column.there) {
                        Accumulator& part = parts[row * p.columns + column.to];
                        if (!anew) add(sum[i][j], part);
                        part = sum[i][j];
                    }
                    sum[i][j] = {};
                }
            }
        }
        __syncthreads();
    }

    // Infinity or NaN may have met the zero of something absent.
#pragma unroll 1
    for (int e = 0; e < THREAD_ROWS * THREAD_COLUMNS; ++e) {
        const Index row = mine.row(e / THREAD_COLUMNS);
        const Column& column = shared.column[mine.column(e % THREAD_COLUMNS)];
        if (c_begin + row >= p.C || !column.there) continue;
        Accumulator& part = parts[row * p.columns + column.to];
        if (!is_finite(part)) part = one_sum(block, row, column, p);
    }
}
