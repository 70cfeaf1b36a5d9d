// mma: the matrix product of gemm.cu on tensor cores, by warps (mma.sync).
//
//     rows     (n, q)        every output with this q, in all phases, reads inputs around it
//     columns  (phase, m)    the outputs that share a q
//     sum over (shift, c)    x[n, c, q - shift] * weight[c, m, tap of the phase at the shift]
//
// What is summed over is cut into chunks: 16 bytes of channels at one shift.  A step brings 8 chunks
// of every row and of every column into shared memory, one of the STAGES of a ring, while the steps
// before are multiplied; a warp multiplies WARP_ROWS x WARP_COLUMNS.  At the end the sums go through
// shared memory to o = (q - q_begin) * stride + r - r_begin, a pixel shuffle.
//
// Absent inputs and taps are zeros in the tiles; a sum that is not finite is computed anew without.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"
#include "product.cuh"

constexpr int CHUNK = 16 / sizeof(Element);  // channels
constexpr int CHUNKS = 8;                    // of a line; they fill all banks once
constexpr int ROW_WARPS = ROWS / WARP_ROWS;
constexpr int COLUMN_WARPS = COLUMNS / WARP_COLUMNS;
static_assert(ROW_WARPS * COLUMN_WARPS * 32 == THREADS, "every warp has its part of the tile");
static_assert(THREADS == 32 * CHUNKS, "a thread loads the same chunk of every line");
static_assert(WARP_ROWS % 16 == 0 && WARP_COLUMNS % 8 == 0, "as mma.sync has it");

struct alignas(16) Chunk {
    unsigned int word[4];
};

// Rows or columns of the operands, 128 bytes each.  Eight lines below each other have their chunks of
// the same number in eight different places, so no two of them lie in the same banks.
template <int LINES>
struct Tile {
    Chunk chunk[LINES][CHUNKS];

    __device__ __forceinline__ Chunk* at(int line, int number)
    {
        return &chunk[line][number ^ line % CHUNKS];
    }
};

// Columns as they lie in memory if output channels are nearest there: of each chunk its channels, and
// of a channel VECTORS times 16 bytes.  Neighbouring channels have the same columns in different
// places, so that what one instruction reads of all channels of a chunk fills all banks once.
struct PackedTile {
    static constexpr int VECTORS = COLUMNS / CHUNK;
    static constexpr int ALIKE = VECTORS < 8 ? 8 / VECTORS : 1;  // channels in 128 bytes
    Chunk chunk[CHUNKS][CHUNK][VECTORS];

    __device__ __forceinline__ Chunk* at(int number, int channel, int vector)
    {
        return &chunk[number][channel][vector ^ channel / ALIKE * (8 / CHUNK)];
    }
};

// A if FIRST, otherwise B.
template <bool FIRST, typename A, typename B>
struct Either {
    using Type = A;
};
template <typename A, typename B>
struct Either<false, A, B> {
    using Type = B;
};

struct Stage {
    Tile<ROWS> x;
    Either<WEIGHT_PACKED, PackedTile, Tile<COLUMNS>>::Type weight;
};

// The sums on their way out.  Padded so that no lanes that write together meet in a bank, and few of
// those that read along what is near in the result's memory.
struct Sums {
    static constexpr int LENGTH = OUT_CHANNELS_LAST ? COLUMNS + 8 : ROWS + 4;
    alignas(16) float sum[OUT_CHANNELS_LAST ? ROWS : COLUMNS][LENGTH];

    __device__ __forceinline__ float& at(int row, int column)
    {
        return OUT_CHANNELS_LAST ? sum[row][column] : sum[column][row];
    }
};

struct Shared {
    union {
        Stage stage[STAGES];
        Sums sums;
    };
    Row row[ROWS];
    Column column[COLUMNS];
};
static_assert(sizeof(Shared) == SHARED_BYTES, "Python launches with SHARED_BYTES");

// --- what is summed over --------------------------------------------------------------------------

// The shifts of one block.  Blocks of a single phase skip those at which it has no tap.
struct Shifts {
    const Params& p;
    const Column& column;  // any of the block's

    __device__ __forceinline__ bool visited(int a, Index j) const
    {
        const bool single = !INTERLEAVED && p.phase_columns.divisor % COLUMNS == 0;
        return !single || tap_at(p.axis[a], column.r[a], j) >= 0;
    }

    __device__ __forceinline__ Index count() const
    {
        Index all = 1;
#pragma unroll
        for (int a = 0; a < AXES; ++a) {
            Index some = 0;
            for (Index j = 0; j < p.axis[a].shifts; ++j) some += visited(a, j);
            all *= some;
        }
        return all;
    }

    // Goes to the first visited shift from j on; false if there is none.
    __device__ __forceinline__ bool seek(Index (&j)[AXES]) const
    {
        for (;;) {
            bool there = true;
#pragma unroll
            for (int a = 0; a < AXES; ++a) there = there && visited(a, j[a]);
            if (there) return true;
            if (!advance(j, p)) return false;
        }
    }
};

// The chunks of one thread: of each step the same.
struct Walk {
    Index j[AXES], c;  // my chunk's shift, and its first channel
    bool more;         // is there a chunk left for me?

    // Before the first step, as if behind the last channel of a shift before the first one.
    __device__ __forceinline__ void first(int number, const Shifts& shifts)
    {
        c = all_channels(shifts) + (number - CHUNKS) * CHUNK;
#pragma unroll
        for (int a = 0; a < AXES; ++a) j[a] = a < AXES - 1 ? 0 : -1;
        more = true;
    }

    // Goes to my chunk of the next step.  Is it at another shift?  That comes after the last channel.
    __device__ __forceinline__ bool next(const Shifts& shifts)
    {
        c += CHUNKS * CHUNK;
        const bool moves = c >= shifts.p.C;
        while (more && c >= shifts.p.C) {
            c -= all_channels(shifts);
            more = advance(j, shifts.p) && shifts.seek(j);
        }
        return moves;
    }

    static __device__ __forceinline__ Index all_channels(const Shifts& shifts)
    {
        return (shifts.p.C + CHUNK - 1) / CHUNK * CHUNK;
    }
};

// One operand, as one thread loads it: chunk `number` of every 32nd line.  VECTOR channels lie side
// by side and aligned, and are moved at once.  If that is 1 the lanes of a warp run along the lines,
// which may be nearest in memory, and channels are gathered in registers.
template <typename Line, int LINES, int VECTOR>
struct Operand {
    static constexpr int LOADS = (LINES + 31) / 32;
    static constexpr bool COPIED = ASYNC && VECTOR > 1;

    const Element* from;
    Index stride;  // of the channels
    Walk walk;
    const Element* at[LOADS];  // my chunk of each line
    unsigned int there;        // which of my lines have something at this shift
    Chunk chunk[COPIED ? 1 : LOADS];

    static __device__ __forceinline__ int number()
    {
        return VECTOR > 1 ? threadIdx.x % CHUNKS : threadIdx.x / 32;
    }
    static __device__ __forceinline__ int line(int load)
    {
        return (VECTOR > 1 ? threadIdx.x / CHUNKS : threadIdx.x) % 32 + 32 * load;
    }
    static __device__ __forceinline__ Chunk* place(Tile<LINES>& tile, int load)
    {
        return tile.at(line(load), number());
    }

    __device__ __forceinline__ void first(const Element* operand, Index channel_stride,
                                          const Shifts& shifts)
    {
        from = operand;
        stride = VECTOR > 1 ? 1 : channel_stride;
        walk.first(number(), shifts);
    }

    __device__ __forceinline__ void next(const Line* lines, const Shifts& shifts)
    {
        if (walk.next(shifts)) {
            locate(lines, shifts.p);
            return;
        }
#pragma unroll
        for (int load = 0; load < LOADS; ++load) at[load] += CHUNKS * CHUNK * stride;
    }

    __device__ __forceinline__ void locate(const Line* lines, const Params& p)
    {
        there = 0;
#pragma unroll
        for (int load = 0; load < LOADS; ++load) {
            Index offset = 0;
            if (walk.more && line(load) < LINES
                && operand_at(lines[line(load)], walk.j, p, offset))
                there |= 1u << load;
            at[load] = from + (offset + walk.c * stride);
        }
    }

    // Begins to load my chunks of a step.
    __device__ __forceinline__ void begin(Tile<LINES>& tile, Index C)
    {
        const Index left = WHOLE_CHUNKS ? CHUNK : C - walk.c;
#pragma unroll
        for (int load = 0; load < LOADS; ++load) {
            if (line(load) >= LINES) continue;
            const Element* source = at[load];
            const Index present = there >> load & 1 ? left : 0;
            if constexpr (COPIED) {
                Element* const to = reinterpret_cast<Element*>(place(tile, load));
                // Each line begins with another part, so no two copies at once lie in one bank.
#pragma unroll
                for (int part = 0; part < CHUNK; part += VECTOR) {
                    const int e = (part + line(load) * VECTOR) % CHUNK;
                    copy_async<VECTOR * sizeof(Element)>(
                        to + e, source + e, e < present ? VECTOR * sizeof(Element) : 0);
                }
            } else {
                struct alignas(VECTOR * sizeof(Element)) Vector {
                    Element element[VECTOR];
                };
                Vector vector[CHUNK / VECTOR] = {};
#pragma unroll
                for (int e = 0; e < CHUNK; e += VECTOR, source += VECTOR * stride)
                    if (e < present)
                        vector[e / VECTOR] = *reinterpret_cast<const Vector*>(source);
                memcpy(&chunk[load], vector, sizeof(Chunk));
            }
        }
    }

    // Puts into the tile what came through registers.
    __device__ __forceinline__ void end(Tile<LINES>& tile)
    {
        if constexpr (!COPIED) {
#pragma unroll
            for (int load = 0; load < LOADS; ++load)
                if (line(load) < LINES) *place(tile, load) = chunk[load];
        }
    }
};

// The weight, as one thread loads it where output channels are nearest in memory: of chunk `number`
// the same 16 bytes of columns, of some of its channels.  These columns share a tap, or have none.
struct PackedWeight {
    static constexpr int VECTORS = PackedTile::VECTORS;
    static constexpr int LOADS = (COLUMNS + 31) / 32;
    static constexpr bool COPIED = ASYNC;
    static_assert(32 % VECTORS == 0, "the lanes of a warp load whole channels");

    const Element* from;
    Index stride;  // of the channels
    Walk walk;
    const Element* at;  // my columns of my chunk
    bool there;         // have my columns a tap at this shift?
    Chunk chunk[COPIED ? 1 : LOADS];

    static __device__ __forceinline__ int number() { return threadIdx.x / 32; }
    static __device__ __forceinline__ int vector() { return threadIdx.x % VECTORS; }
    static __device__ __forceinline__ int channel(int load)
    {
        return threadIdx.x % 32 / VECTORS + 32 / VECTORS * load;
    }
    static __device__ __forceinline__ Chunk* place(PackedTile& tile, int load)
    {
        return tile.at(number(), channel(load), vector());
    }

    __device__ __forceinline__ void first(const Element* weight, Index channel_stride,
                                          const Shifts& shifts)
    {
        from = weight;
        stride = channel_stride;
        walk.first(number(), shifts);
    }

    __device__ __forceinline__ void next(const Column* columns, const Shifts& shifts)
    {
        if (walk.next(shifts))
            locate(columns, shifts.p);
        else
            at += CHUNKS * CHUNK * stride;
    }

    __device__ __forceinline__ void locate(const Column* columns, const Params& p)
    {
        Index offset = 0;
        there = walk.more && operand_at(columns[vector() * CHUNK], walk.j, p, offset);
        at = from + ((there ? offset : 0) + walk.c * stride);  // aligned, even if absent
    }

    // Begins to load my part of a step.
    __device__ __forceinline__ void begin(PackedTile& tile, Index C)
    {
        const Index left = WHOLE_CHUNKS ? CHUNK : C - walk.c;
#pragma unroll
        for (int load = 0; load < LOADS; ++load) {
            if (channel(load) >= CHUNK) continue;
            const Element* const source = at + channel(load) * stride;
            const bool present = there && channel(load) < left;
            if constexpr (COPIED)
                copy_async<16>(place(tile, load), source, present ? 16 : 0);
            else
                chunk[load] = present ? *reinterpret_cast<const Chunk*>(source) : Chunk{};
        }
    }

    // Puts into the tile what came through registers.
    __device__ __forceinline__ void end(PackedTile& tile)
    {
        if constexpr (!COPIED) {
#pragma unroll
            for (int load = 0; load < LOADS; ++load)
                if (channel(load) < CHUNK) *place(tile, load) = chunk[load];
        }
    }
};

using Weight = Either<WEIGHT_PACKED, PackedWeight, Operand<Column, COLUMNS, WEIGHT_VECTOR>>::Type;

// --- products -------------------------------------------------------------------------------------

using Fragment = float[4];
constexpr int ROW_FRAGMENTS = WARP_ROWS / 16;
constexpr int COLUMN_FRAGMENTS = WARP_COLUMNS / 8;

// A pair of chunks of 16 rows, and of 8 columns.
using RowPair = unsigned int[4];
using ColumnPair = unsigned int[2];

__device__ __forceinline__ void load_rows(RowPair& a, Tile<ROWS>& tile, int row, int pair)
{
    const int lane = threadIdx.x % 32;
    load_matrices(a, tile.at(row + lane % 16, 2 * pair + lane / 16));
}

// Loads two pairs at once.
__device__ __forceinline__ void load_columns(ColumnPair& b, ColumnPair& next, Tile<COLUMNS>& tile,
                                             int column, int pair)
{
    const int lane = threadIdx.x % 32;
    unsigned int both[4];
    load_matrices(both, tile.at(column + lane % 8, 2 * pair + lane / 8));
    b[0] = both[0], b[1] = both[1], next[0] = both[2], next[1] = both[3];
}

// The same of columns that lie side by side.  No instruction transposes 4 bytes, but each lane can
// read its own.
__device__ __forceinline__ void load_columns(ColumnPair& b, ColumnPair& next, PackedTile& tile,
                                             int column, int pair)
{
    const int lane = threadIdx.x % 32;
    unsigned int both[4];
    if constexpr (sizeof(Element) == 2)
        load_matrices_transposed(both, tile.at(2 * pair + lane / 8, lane % 8, column / CHUNK));
    else
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            Chunk* const four = tile.at(2 * pair + i, lane % 4, (column + lane / 4) / CHUNK);
            both[i] = four->word[lane / 4 % CHUNK];
        }
    b[0] = both[0], b[1] = both[1], next[0] = both[2], next[1] = both[3];
}

__device__ __forceinline__ void multiply(Fragment& sum, const RowPair& a, const ColumnPair& b)
{
    if constexpr (MMA == Mma::F16) mma_f16(sum, a, b);
    if constexpr (MMA == Mma::BF16) mma_bf16(sum, a, b);
    if constexpr (MMA == Mma::TF32 || MMA == Mma::TF32X3) mma_tf32(sum, a, b);
    if constexpr (MMA == Mma::F16_K8) {
        mma_f16_k8(sum, a[0], a[1], b[0]);
        mma_f16_k8(sum, a[2], a[3], b[1]);
    }
}

// Splits float32 into TF32 and what that leaves over.  Of infinity it leaves NaN, and so it does
// where the largest floats round to infinity: such sums are computed anew.
template <int COUNT>
__device__ __forceinline__ void split(unsigned int (&high)[COUNT], unsigned int (&low)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
        const float value = bits_to_float(high[i]), rounded = float_to_tf32(value);
        high[i] = float_to_bits(rounded);
        low[i] = float_to_bits(float_to_tf32(value - rounded));
    }
}

// Half types: one step's products are added where they are summed, in float32.
__device__ __forceinline__ void multiply(Stage& stage, int row, int column,
                                         Fragment (&sum)[ROW_FRAGMENTS][COLUMN_FRAGMENTS])
{
#pragma unroll
    for (int first = 0; first < CHUNKS / 2; first += 2) {
        ColumnPair b[2][COLUMN_FRAGMENTS];
#pragma unroll
        for (int j = 0; j < COLUMN_FRAGMENTS; ++j)
            load_columns(b[0][j], b[1][j], stage.weight, column + 8 * j, first);
#pragma unroll
        for (int pair = 0; pair < 2; ++pair) {
            RowPair a[ROW_FRAGMENTS];
#pragma unroll
            for (int i = 0; i < ROW_FRAGMENTS; ++i)
                load_rows(a[i], stage.x, row + 16 * i, first + pair);
#pragma unroll
            for (int i = 0; i < ROW_FRAGMENTS; ++i)
#pragma unroll
                for (int j = 0; j < COLUMN_FRAGMENTS; ++j) multiply(sum[i][j], a[i], b[pair][j]);
        }
    }
}

// TF32: tensor cores cut their sums off, so they sum at most 32 products, and rounded additions do
// the rest.  Three times TF32 sums 16: the small products first, low * high and high * low.
__device__ __forceinline__ void multiply_promoted(
    Stage& stage, int row, int column, Fragment (&sum)[ROW_FRAGMENTS][COLUMN_FRAGMENTS])
{
    constexpr bool THREE = MMA == Mma::TF32X3;
    constexpr int PAIRS = THREE ? 2 : 4;
#pragma unroll
    for (int first = 0; first < CHUNKS / 2; first += PAIRS) {
        ColumnPair b[PAIRS][COLUMN_FRAGMENTS], b_low[PAIRS][COLUMN_FRAGMENTS];
#pragma unroll
        for (int pair = 0; pair < PAIRS; pair += 2)
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; ++j) {
                load_columns(b[pair][j], b[pair + 1][j], stage.weight, column + 8 * j,
                             first + pair);
                split(b[pair][j], b_low[pair][j]);
                split(b[pair + 1][j], b_low[pair + 1][j]);
            }
#pragma unroll
        for (int i = 0; i < ROW_FRAGMENTS; ++i) {
            RowPair a[PAIRS], a_low[PAIRS];
#pragma unroll
            for (int pair = 0; pair < PAIRS; ++pair) {
                load_rows(a[pair], stage.x, row + 16 * i, first + pair);
                split(a[pair], a_low[pair]);
            }
            Fragment part[COLUMN_FRAGMENTS] = {};
            const auto add_products = [&](const RowPair (&rows)[PAIRS],
                                          const ColumnPair (&columns)[PAIRS][COLUMN_FRAGMENTS]) {
#pragma unroll
                for (int pair = 0; pair < PAIRS; ++pair)
#pragma unroll
                    for (int j = 0; j < COLUMN_FRAGMENTS; ++j)
                        multiply(part[j], rows[pair], columns[pair][j]);
            };
            if constexpr (THREE) {
                add_products(a_low, b);
                add_products(a, b_low);
            }
            add_products(a, b);
#pragma unroll
            for (int j = 0; j < COLUMN_FRAGMENTS; ++j)
#pragma unroll
                for (int e = 0; e < 4; ++e) sum[i][j][e] += part[j][e];
        }
    }
}

// --- the pixel shuffle ----------------------------------------------------------------------------

struct alignas(8) Pair {
    float first, second;
};

// A lane has two sums of a row, and two of the row that lies 8 below.
__device__ __forceinline__ void put(const Fragment (&sum)[ROW_FRAGMENTS][COLUMN_FRAGMENTS], int row,
                                    int column, Sums& sums)
{
    row += threadIdx.x % 32 / 4;
    column += threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < ROW_FRAGMENTS * 2; ++i)
#pragma unroll
        for (int j = 0; j < COLUMN_FRAGMENTS; ++j) {
            const Pair two = {sum[i / 2][j][i % 2 * 2], sum[i / 2][j][i % 2 * 2 + 1]};
            float& at = sums.at(row + 8 * i, column + 8 * j);
            if constexpr (OUT_CHANNELS_LAST)
                reinterpret_cast<Pair&>(at) = two;
            else
                at = two.first, sums.at(row + 8 * i, column + 8 * j + 1) = two.second;
        }
}

// The outputs of one block.
struct Outputs {
    Shared& shared;
    const Element *x, *weight, *bias;
    Element* out;
    const Params& p;
    Index group;

    __device__ __forceinline__ bool locate(const Row& row, const Column& column, Index& at) const
    {
        bool there = row.n >= 0 && column.m >= 0;
        at = row.n * p.out_n + channel(column) * p.out_m;
#pragma unroll
        for (int a = 0; a < AXES; ++a) {
            const Axis& axis = p.axis[a];
            const Index o = (row.q[a] - axis.q_begin) * axis.stride.divisor + column.r[a]
                            - axis.r_begin;
            there = there && inside(o, axis.out_size.divisor);
            at += o * axis.out_stride;
        }
        return there;
    }

    __device__ __forceinline__ Index channel(const Column& column) const
    {
        return group * p.M.divisor + column.m;
    }

    __device__ __forceinline__ float bias_of(const Column& column) const
    {
        return bias && column.m >= 0 ? widen(bias[channel(column) * p.bias_m]) : 0.0f;
    }

    // Stores WIDTH outputs side by side, from a column on.
    template <int WIDTH>
    __device__ __forceinline__ void store(int row, int column, const float (&added)[WIDTH]) const
    {
        const Row& r = shared.row[row];
        Index at;
        if (!locate(r, shared.column[column], at)) return;
        struct alignas(WIDTH * sizeof(Element)) Vector {
            Element element[WIDTH];
        } vector;
        unsigned int astray = 0;
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) {
            const float sum = shared.sums.at(row, column + e);
            finish(sum, added[e], vector.element[e]);
            if (!is_finite(sum)) astray |= 1u << e;
        }
        *reinterpret_cast<Vector*>(out + at) = vector;
        // Infinity or NaN may have met the zero of something absent: what does the definition say?
        for (int e = 0; astray; ++e, astray >>= 1) {
            if (!(astray & 1)) continue;
            const Column& c = shared.column[column + e];
            finish(one_output(x, weight, p, r.n, group, c.m, r.q, c.r), bias_of(c), out[at + e]);
        }
    }

    // Lanes run along the channels.
    __device__ __forceinline__ void store_channels_last() const
    {
        constexpr int RUNS = COLUMNS / OUT_VECTOR;
        const int column = threadIdx.x % RUNS * OUT_VECTOR;
        float added[OUT_VECTOR];
#pragma unroll
        for (int e = 0; e < OUT_VECTOR; ++e) added[e] = bias_of(shared.column[column + e]);
        for (int row = threadIdx.x / RUNS; row < ROWS; row += THREADS / RUNS)
            store(row, column, added);
    }

    // Lanes run along the last axis: rows, and within a row its phases if their columns are side by
    // side, or all in this block.  `begin` is the block's first column among all.
    __device__ __forceinline__ void store_channels_first(Index begin) const
    {
        Index phases = 1, skipped = 0;
        if (INTERLEAVED) {
            phases = p.axis[AXES - 1].phases.divisor;
            divide(begin, p.axis[AXES - 1].phases, skipped);
        }
        const Index width = ROWS * phases;
        const Index teams = width < THREADS ? THREADS / width : 1;
        for (Index e = threadIdx.x; e < width * teams; e += THREADS) {
            const Index team = e / width, phase = e % width % phases;
            const int row = static_cast<int>(e % width / phases);
            for (Index set = team; set * phases + phase - skipped < COLUMNS; set += teams) {
                Index j = set * phases + phase - skipped;
                if (j < 0) continue;
                if constexpr (INTERLEAVED && WEIGHT_PACKED) {
                    Index m;
                    const Index before = divide(set, p.M, m);
                    j = (before * phases + phase) * p.M.divisor + m;
                }
                const int column = static_cast<int>(j);
                const float added[1] = {bias_of(shared.column[column])};
                store(row, column, added);
            }
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 1)
mma(const Element* __restrict__ x, const Element* __restrict__ weight,
    const Element* __restrict__ bias, Element* __restrict__ out, const Params p)
{
    Shared& shared = *static_cast<Shared*>(dynamic_shared());

    // Which tile is mine?  Neighbouring blocks have the same rows and share their inputs in L2.
    Index column_block, row_block;
    const Index rest = divide(static_cast<Index>(blockIdx.x), p.column_blocks, column_block);
    const Index group = divide(rest, p.row_blocks, row_block);
    for (int i = threadIdx.x; i < ROWS; i += THREADS)
        shared.row[i] = row_at(row_block * ROWS + i, p);
    for (int j = threadIdx.x; j < COLUMNS; j += THREADS)
        shared.column[j] =
            column_at<INTERLEAVED && !WEIGHT_PACKED>(column_block * COLUMNS + j, p);
    __syncthreads();

    const Shifts shifts = {p, shared.column[0]};
    const Index chunks = shifts.count() * ((p.C + CHUNK - 1) / CHUNK);
    const Index steps = (chunks + CHUNKS - 1) / CHUNKS;
    Operand<Row, ROWS, X_VECTOR> rows;
    Weight columns;
    rows.first(x + group * p.C * p.x_c, p.x_c, shifts);
    columns.first(weight + group * p.weight_group, p.weight_c, shifts);
    const auto begin = [&](Index step) {
        if (0 <= step && step < steps) {
            rows.begin(shared.stage[step % STAGES].x, p.C);
            columns.begin(shared.stage[step % STAGES].weight, p.C);
        }
        if constexpr (ASYNC) copy_async_commit();
    };
    const auto end = [&](Index step) {
        if (step >= steps) return;
        if (step >= 0) {
            rows.end(shared.stage[step % STAGES].x);
            columns.end(shared.stage[step % STAGES].weight);
        }
        rows.next(shared.row, shifts);
        columns.next(shared.column, shifts);
    };

    const int warp = threadIdx.x / 32;
    const int my_row = warp / COLUMN_WARPS * WARP_ROWS;
    const int my_column = warp % COLUMN_WARPS * WARP_COLUMNS;
    Fragment sum[ROW_FRAGMENTS][COLUMN_FRAGMENTS] = {};
    // The first rounds only find their chunks, and load.
#pragma unroll 1
    for (Index step = -STAGES; step < steps; ++step) {
        // One barrier says that this step is whole and that the stage of the last one is free.
        if constexpr (ASYNC) copy_async_wait<STAGES - 2>();
        __syncthreads();
        begin(step + STAGES - 1);
        if (step >= 0) {
            Stage& stage = shared.stage[step % STAGES];
            if constexpr (MMA == Mma::TF32 || MMA == Mma::TF32X3)
                multiply_promoted(stage, my_row, my_column, sum);
            else
                multiply(stage, my_row, my_column, sum);
        }
        end(step + STAGES - 1);
    }

    // Each sum goes to the output of its q and its phase.
    __syncthreads();
    put(sum, my_row, my_column, shared.sums);
    __syncthreads();
    const Outputs outputs = {shared, x, weight, bias, out, p, group};
    if constexpr (OUT_CHANNELS_LAST)
        outputs.store_channels_last();
    else
        outputs.store_channels_first(column_block * COLUMNS);
}
