// hopper: gemm's matrix product on the tensor cores of Hopper (sm_90a), fed by its copy engine.
//
//     rows     (n, q)        every output with this q, in all phases, reads inputs around it
//     columns  (phase, m)    a block of columns has one phase, and skips the shifts that it lacks
//     sum over (shift, c)    x[n, c, q - shift] * weight[c, m, tap of the phase at the shift]
//
// A tile's rows are a box: some images, and a rectangle of q in each.  So its inputs at one shift are
// a box as well, and one thread fetches them with one instruction, DEPTH channels at a time; what
// lies outside the image arrives as zeros.  Weights come the same way, m nearest in memory.
//
// A block is three groups of four warps.  The first one's first thread, the producer, keeps a ring
// of stages full; the two others, the consumers, multiply 64 rows each.  A stage has two barriers:
// `full` is complete when its bytes are there, `empty` when all eight warps have multiplied them.
// Blocks stay, and take one tile after another, those of the phases with most taps first.
//
// The CLUSTER blocks of a cluster take tiles with the same columns and neighbouring rows, step by
// step together.  Each fetches a part of the weights, for all of them, so a stage is empty when the
// consumers of all blocks have multiplied it.  Where there are no rows left for one, its tile lies
// beyond the last image: its inputs arrive as zeros, and nothing of it is stored.
//
// The outputs of a tile are a box too, of the view that its phase is of the result: where it can, the
// copy engine takes them from shared memory while the next tile is being multiplied.
//
// Sums are float; tensor cores cut off what they add below 2^-22 or so of the largest term.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"
#include "gather.cuh"
#include "hopper.cuh"

constexpr int WARP_GROUP = 128;
constexpr int CONSUMERS = 2 * WARP_GROUP;
constexpr int SLICE = 64;  // columns that lie in one row of shared memory, which has 128 bytes
constexpr int SLICES = COLUMNS / SLICE;
constexpr int WIDTH = COLUMNS < 128 ? COLUMNS : 128;  // columns of one instruction
static_assert(THREADS == 3 * WARP_GROUP, "a producer and two consumers");
static_assert(ROWS == 128 && DEPTH == 64, "64 rows a consumer, one row of 128 bytes a step");
static_assert(SLICES % CLUSTER == 0, "each block fetches as many slices of the weights");
static_assert(sizeof(Element) == 2, "float16 or bfloat16");
static_assert(X_VECTOR == 8 && WEIGHT_VECTOR == 8, "the copy engine wants multiples of 16 bytes");

// How rows are cut into boxes.
struct Boxes {
    Index batch;
    Division groups;
    Index images;       // of one box
    Index rows;         // of one box: images times the rectangle, ROWS or less
    Index tiles;        // of everything
    Division clusters;  // that take all boxes with the same columns
    struct {
        Division size, count;
    } axis[AXES];
};

struct Stage {
    Element x[ROWS][DEPTH];
    Element weight[SLICES][DEPTH][SLICE];
};

struct alignas(1024) Shared {
    Stage stage[STAGES];
    Element out[SLICES][ROWS][SLICE];
    MBarrier full[STAGES], empty[STAGES];
};
static_assert(sizeof(Shared) == SHARED_BYTES, "Python launches with SHARED_BYTES");

// One tile: its phase, its group, its first row and its first column.
struct Tile {
    Index phase, r[AXES], group, n, q[AXES], m;
    Index first[AXES];  // the phase's first q
};

__device__ __forceinline__ Tile tile_at(Index index, const Params& p, const Boxes& boxes)
{
    Tile tile;
    Index column_block, box;
    const Index block = index % CLUSTER;
    index = divide(index / CLUSTER, p.column_blocks, column_block);
    index = divide(index, boxes.clusters, box);
    box = box * CLUSTER + block;
    index = divide(index, boxes.groups, tile.group);
    tile.phase = index;
    tile.m = column_block * COLUMNS;
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) {
        const Axis& axis = p.axis[a];
        // Phases from r = 0 on: the lower ones have the more taps.
        Index phase;
        index = divide(index, axis.phases, phase);
        if (axis.phases.divisor < axis.stride.divisor)
            divide(phase + axis.r_begin, axis.stride, tile.r[a]);
        else
            tile.r[a] = phase;
        Index q;
        box = divide(box, boxes.axis[a].count, q);
        tile.first[a] = axis.q_begin + (tile.r[a] < axis.r_begin ? 1 : 0);
        tile.q[a] = tile.first[a] + q * boxes.axis[a].size.divisor;
    }
    tile.n = box * boxes.images;
    return tile;
}

// The steps of a tile: a combination of shifts at which its phase has a tap, and the first of DEPTH
// channels.
struct Steps {
    const Params& p;
    const Tile& tile;
    Index j[AXES] = {};
    Index c = 0;
    bool more;

    __device__ __forceinline__ Steps(const Params& p, const Tile& tile) : p(p), tile(tile)
    {
        more = seek();
    }

    __device__ __forceinline__ Index tap(int a) const
    {
        return tap_at(p.axis[a], tile.r[a], j[a]);
    }

    __device__ __forceinline__ bool seek()
    {
        do {
            bool there = true;
#pragma unroll
            for (int a = 0; a < AXES; ++a) there = there && tap(a) >= 0;
            if (there) return true;
        } while (advance(j, p));
        return false;
    }

    __device__ __forceinline__ void next()
    {
        c += DEPTH;
        if (c < p.C) return;
        c = 0;
        more = advance(j, p) && seek();
    }
};

// Where in the ring of stages somebody is, and the parity of the phase that its barriers are in.
struct Ring {
    int stage = 0, parity = 0;

    __device__ __forceinline__ void next()
    {
        if (++stage < STAGES) return;
        stage = 0;
        parity ^= 1;
    }
};

// --- the producer -------------------------------------------------------------------------------

__device__ __forceinline__ void fetch(const Steps& steps, const Params& p, const TensorMap& x_map,
                                      const TensorMap& weight_map, Stage& stage, MBarrier& full)
{
    const Tile& tile = steps.tile;
    int x_at[AXES + 2];  // channel, the axes from the last to the first, image
    x_at[0] = static_cast<int>(tile.group * p.C + steps.c);
    Index tap = 0;  // taps are one axis, the last one's nearest
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        x_at[AXES - a] = static_cast<int>(element_at(p.axis[a], tile.q[a], steps.j[a]));
        tap = tap * p.axis[a].kernel_size + steps.tap(a);
    }
    x_at[AXES + 1] = static_cast<int>(tile.n);
    tma_load(stage.x, x_map, full, x_at);
    const int first = blockIdx.x % CLUSTER * (SLICES / CLUSTER);
#pragma unroll
    for (int slice = first; slice < first + SLICES / CLUSTER; ++slice) {
        const int weight_at[] = {static_cast<int>(tile.m) + slice * SLICE,
                                 static_cast<int>(steps.c), static_cast<int>(tile.group),
                                 static_cast<int>(tap)};
        if constexpr (CLUSTER == 1)
            tma_load(stage.weight[slice], weight_map, full, weight_at);
        else
            tma_multicast<CLUSTER>(stage.weight[slice], weight_map, full, weight_at);
    }
}

__device__ __forceinline__ void produce(const Params& p, const Boxes& boxes, const TensorMap& x_map,
                                        const TensorMap& weight_map, Shared& shared)
{
    // The whole box arrives, also where it lies outside the image, and so do all of the weights,
    // whichever block fetches them.
    const int bytes = static_cast<int>(boxes.rows) * sizeof(shared.stage[0].x[0])
                      + sizeof(shared.stage[0].weight);
    Ring ring;
    for (Index index = blockIdx.x; index < boxes.tiles; index += gridDim.x) {
        const Tile tile = tile_at(index, p, boxes);
        for (Steps steps(p, tile); steps.more; steps.next()) {
            mbarrier_wait(shared.empty[ring.stage], ring.parity ^ 1);
            mbarrier_arrive_expect_tx(shared.full[ring.stage], bytes);
            fetch(steps, p, x_map, weight_map, shared.stage[ring.stage], shared.full[ring.stage]);
            ring.next();
        }
    }
}

// --- the consumers ------------------------------------------------------------------------------

// Descriptors count pieces of 16 bytes in the own block.  An address is 18 bits of place in a block,
// and above them the block's number in its cluster.
__device__ __forceinline__ unsigned int piece_at(const void* tile)
{
    return (shared_address(tile) & 0x3ffff) >> 4;
}

// Says where a tile lies in shared memory: its first piece, the bytes from one run of 64 columns to
// the next (where columns are near), the bytes from one run of 8 rows of 128 bytes to the next, and
// the swizzle of 128 bytes.
__device__ __forceinline__ unsigned long long descriptor(unsigned int piece, unsigned int run_of_64)
{
    const unsigned int run_of_8 = 8 * 128, low = run_of_64 >> 4 << 16 | piece;
    return static_cast<unsigned long long>(1u << 30 | run_of_8 >> 4) << 32 | low;
}

using Sums = float[COLUMNS / WIDTH][WIDTH / 2];

__device__ __forceinline__ void multiply(const Stage& stage, int group, Sums& sum)
{
    constexpr int PRODUCTS = 16;  // channels of one instruction
    constexpr unsigned int RUN = sizeof stage.weight[0], LINE = sizeof stage.weight[0][0];
    const unsigned int x = piece_at(stage.x[group * (ROWS / 2)]), weight = piece_at(stage.weight);
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < DEPTH; c += PRODUCTS) {
        const unsigned long long rows = descriptor(x + c * sizeof(Element) / 16, 0);
#pragma unroll
        for (int i = 0; i < COLUMNS / WIDTH; ++i) {
            const unsigned int first = weight + (i * (WIDTH / SLICE) * RUN + c * LINE) / 16;
            wgmma<Element>(sum[i], rows, descriptor(first, RUN));
        }
    }
    wgmma_commit();
    wgmma_wait(sum);
}

// Gives a stage back to all who fill it: one lane of a warp for each block of the cluster.
__device__ __forceinline__ void give_back(MBarrier& empty)
{
    const int lane = threadIdx.x % 32;
    if (lane >= CLUSTER) return;
    if constexpr (CLUSTER == 1)
        mbarrier_arrive(empty);
    else
        mbarrier_arrive_in(lane, empty);
}

// One of my two rows of a tile.
struct Row {
    Index n, q[AXES];
    Index out_at;
    bool there;  // does it have an output?
};

__device__ __forceinline__ Row row_at(const Tile& tile, Index row, const Params& p,
                                      const Boxes& boxes)
{
    Row mine;
    mine.out_at = 0;
    mine.there = true;
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) {
        const Axis& axis = p.axis[a];
        Index q;
        row = divide(row, boxes.axis[a].size, q);
        mine.q[a] = tile.q[a] + q;
        const Index o = (mine.q[a] - axis.q_begin) * axis.stride.divisor + tile.r[a] - axis.r_begin;
        mine.there = mine.there && inside(o, axis.out_size.divisor);
        mine.out_at += o * axis.out_stride;
    }
    mine.n = tile.n + row;
    mine.out_at += mine.n * p.out_n;
    mine.there = mine.there && row < boxes.images && mine.n < boxes.batch;
    return mine;
}

struct alignas(2 * sizeof(Element)) Pair {
    Element element[2];
};

// The pixel shuffle: each sum goes to the output of its q and its phase, or to that output's place in
// shared memory, two channels at a time where they are neighbours.
__device__ __forceinline__ void store(const Element* x, const Element* weight, const Element* bias,
                                      Element* out, const Params& p, const Boxes& boxes,
                                      const Tile& tile, int group, const Sums& sum, Shared& shared)
{
    const int warp = threadIdx.x % WARP_GROUP / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int in_tile = group * (ROWS / 2) + warp * 16 + lane / 4 + 8 * half;
        const Row row = row_at(tile, in_tile, p, boxes);
        if (!row.there) continue;
        const auto place = [&](int column) {
            Element* const line = shared.out[column / SLICE][in_tile];
            const Index channel = tile.group * p.M.divisor + tile.m + column;
            return OUT_MAPS ? line + ((column % SLICE) ^ (in_tile % 8 * 8))  // swizzled
                            : out + row.out_at + channel * p.out_m;
        };
        const auto added = [&](int column) {
            const Index channel = tile.group * p.M.divisor + tile.m + column;
            return bias ? widen(bias[channel * p.bias_m]) : 0.0f;
        };
        unsigned long long astray = 0;
#pragma unroll
        for (int pair = 0; pair < COLUMNS / 8; ++pair) {
            const int column = 8 * pair + lane % 4 * 2;
            Pair mine = {};
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                if (tile.m + column + e >= p.M.divisor) continue;
                const float one = sum[pair / (WIDTH / 8)][pair % (WIDTH / 8) * 4 + half * 2 + e];
                finish(one, added(column + e), mine.element[e]);
                if (OUT_VECTOR == 1) *place(column + e) = mine.element[e];
                if (!is_finite(one)) astray |= 1ull << (2 * pair + e);
            }
            if (OUT_VECTOR > 1 && tile.m + column < p.M.divisor)
                *reinterpret_cast<Pair*>(place(column)) = mine;
        }
        // Infinity or NaN may have met the zero of something absent: what does the definition say?
        for (int e = 0; astray; ++e, astray >>= 1) {
            if (!(astray & 1)) continue;
            const int column = e / 2 * 8 + lane % 4 * 2 + e % 2;
            finish(one_output(x, weight, p, row.n, tile.group, tile.m + column, row.q, tile.r),
                   added(column), *place(column));
        }
    }
}

// One map for each phase; none where threads store.
struct OutMaps {
    TensorMap phase[OUT_MAPS ? OUT_MAPS : 1];
};

// Lets the copy engine take the outputs of a tile from shared memory.
__device__ __forceinline__ void send(const Tile& tile, const OutMaps& out_maps, Shared& shared)
{
    constexpr int GROUP_AXIS = AXES < 3 ? 1 : 0;  // it takes five axes at most
    int at[AXES + 2 + GROUP_AXIS];                // channel, group, last axis to first, image
    if (GROUP_AXIS) at[1] = static_cast<int>(tile.group);
#pragma unroll
    for (int a = 0; a < AXES; ++a)
        at[GROUP_AXIS + AXES - a] = static_cast<int>(tile.q[a] - tile.first[a]);
    at[GROUP_AXIS + AXES + 1] = static_cast<int>(tile.n);
#pragma unroll
    for (int slice = 0; slice < SLICES; ++slice) {
        at[0] = static_cast<int>(tile.m) + slice * SLICE;
        tma_store(out_maps.phase[tile.phase], shared.out[slice], at);
    }
    tma_store_commit();
}

__device__ __forceinline__ void consume(const Element* x, const Element* weight,
                                        const Element* bias, Element* out, const Params& p,
                                        const Boxes& boxes, const OutMaps& out_maps,
                                        Shared& shared, int group)
{
    const bool storing = OUT_MAPS && threadIdx.x == WARP_GROUP;
    Ring ring;
    for (Index index = blockIdx.x; index < boxes.tiles; index += gridDim.x) {
        const Tile tile = tile_at(index, p, boxes);
        Sums sum = {};
        for (Steps steps(p, tile); steps.more; steps.next()) {
            mbarrier_wait(shared.full[ring.stage], ring.parity);
            multiply(shared.stage[ring.stage], group, sum);
            give_back(shared.empty[ring.stage]);
            ring.next();
        }
        if (storing) tma_store_wait();  // until the last tile has left
        if (OUT_MAPS) sync_some<1, CONSUMERS>();
        store(x, weight, bias, out, p, boxes, tile, group, sum, shared);
        if (OUT_MAPS) {
            tma_store_fence();
            sync_some<1, CONSUMERS>();
        }
        if (storing) send(tile, out_maps, shared);
    }
    if (storing) tma_store_wait();
}

__device__ __forceinline__ void sync_cluster()
{
    if constexpr (CLUSTER == 1)
        __syncthreads();
    else
        cluster_sync();
}

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(THREADS, 1)
hopper(const Element* __restrict__ x, const Element* __restrict__ weight,
       const Element* __restrict__ bias, Element* __restrict__ out, const Params p,
       const Boxes boxes, const __grid_constant__ TensorMap x_map,
       const __grid_constant__ TensorMap weight_map, const __grid_constant__ OutMaps out_maps)
{
    Shared& shared = *static_cast<Shared*>(aligned_shared());
    if (threadIdx.x == 0) {
        for (int stage = 0; stage < STAGES; ++stage) {
            mbarrier_init(shared.full[stage], 1);
            mbarrier_init(shared.empty[stage], CLUSTER * CONSUMERS / 32);
        }
        mbarrier_init_fence();
    }
    sync_cluster();

    // The producer needs few registers, the consumers' sums many: 128 * 56 + 256 * 224 = 384 * 168.
    const int group = threadIdx.x / WARP_GROUP;
    if (group == 0) {
        decrease_registers<56>();
        if (threadIdx.x == 0) produce(p, boxes, x_map, weight_map, shared);
    } else {
        increase_registers<224>();
        consume(x, weight, bias, out, p, boxes, out_maps, shared, group - 1);
    }
    if (CLUSTER > 1) sync_cluster();  // others may still give stages back to this block
}
