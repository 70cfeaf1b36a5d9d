// The operands of mma.cu: how chunks of x and of the weight lie in shared memory, and how each thread
// finds its own and brings them there.
#pragma once

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
