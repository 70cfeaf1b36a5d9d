// The instructions that only Hopper has (sm_90a), each as a small function: barriers that count
// bytes, the copy engine, matrix products by a warp group.
//
// As with primitives.cuh, nothing else holds their PTX, and the tests put a twin in its place.
//
// Tiles lie in shared memory in rows of 128 bytes.  The copy engine writes, and the products read,
// each piece of 16 bytes where bits 4 to 6 of its address are exchanged by themselves ^ bits 7 to 9
// ("128-byte swizzle"): so the same piece of eight rows lies in eight different banks.  The pattern
// follows the address; a tile begins at a multiple of 1024.
#pragma once

// Shared memory whose size is given at the launch, for such tiles.
__device__ __forceinline__ void* aligned_shared()
{
    extern __shared__ __align__(1024) unsigned char aligned_shared_bytes[];
    return aligned_shared_bytes;
}

// --- clusters -----------------------------------------------------------------------------------

// Blocks of a kernel that is declared with __cluster_dims__ run at the same time, so many neighbours
// together, and reach into each other's shared memory.  A place there is named by where it lies in
// the own block, and by the other block's number in the cluster.
//
// Waits for all threads of all blocks of the cluster.  It is needed before one reaches into another
// block, which else may not have begun, and after, since it may end.
__device__ __forceinline__ void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release;\n"
                 "barrier.cluster.wait.acquire;" ::: "memory");
}

// --- barriers -----------------------------------------------------------------------------------

// A barrier in shared memory.  Its phase is complete when all arrivals have come, and all bytes that
// they announced; then the next phase begins.  Phases are told apart by their parity: 0, 1, 0, ...
struct MBarrier {
    unsigned long long bits;
};

__device__ __forceinline__ void mbarrier_init(MBarrier& barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
                 :: "r"(shared_address(&barrier)), "r"(arrivals) : "memory");
}

// Shows the copy engine, and other blocks, the barriers that this thread has made.
__device__ __forceinline__ void mbarrier_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(MBarrier& barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
                 :: "r"(shared_address(&barrier)) : "memory");
}

// Arrives and announces bytes that the copy engine will bring.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(MBarrier& barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :: "r"(shared_address(&barrier)), "r"(bytes) : "memory");
}

// Arrives at another block's barrier.  It tells that this thread has done with something; it shows
// nothing that this thread has written (that would wait for all of its stores).
__device__ __forceinline__ void mbarrier_arrive_in(int block, MBarrier& barrier)
{
    asm volatile("{\n"
                 ".reg .b32 there;\n"
                 "mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n"
                 "}"
                 :: "r"(shared_address(&barrier)), "r"(block) : "memory");
}

// Waits until the phase of this parity is complete.  A new barrier behaves as if a phase of parity
// 1 had just ended.
__device__ __forceinline__ void mbarrier_wait(MBarrier& barrier, int parity)
{
    int complete;
    do {
        asm volatile("{\n"
                     ".reg .pred complete;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 complete, [%1], %2;\n"
                     "selp.s32 %0, 1, 0, complete;\n"
                     "}"
                     : "=r"(complete) : "r"(shared_address(&barrier)), "r"(parity) : "memory");
    } while (!complete);
}

// --- the copy engine ----------------------------------------------------------------------------

// What the copy engine knows of an array: address, sizes, strides, and the box that it copies.  Made
// by the driver before the launch, and passed as a __grid_constant__.
struct alignas(64) TensorMap {
    unsigned char opaque[128];
};

// Begins to copy a box to shared memory; its first element is the array's at `at`, the nearest axis
// first.  Elements outside the array become zeros.  All bytes of the box, zeros too, count for the
// barrier.  One thread calls this for all.
__device__ __forceinline__ void tma_load(void* to, const TensorMap& map, MBarrier& barrier,
                                         const int (&at)[3])
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%3, %4, %5}], [%2];"
                 :: "r"(shared_address(to)), "l"(&map), "r"(shared_address(&barrier)),
                    "r"(at[0]), "r"(at[1]), "r"(at[2]) : "memory");
}

__device__ __forceinline__ void tma_load(void* to, const TensorMap& map, MBarrier& barrier,
                                         const int (&at)[4])
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%3, %4, %5, %6}], [%2];"
                 :: "r"(shared_address(to)), "l"(&map), "r"(shared_address(&barrier)),
                    "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]) : "memory");
}

__device__ __forceinline__ void tma_load(void* to, const TensorMap& map, MBarrier& barrier,
                                         const int (&at)[5])
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 " [%0], [%1, {%3, %4, %5, %6, %7}], [%2];"
                 :: "r"(shared_address(to)), "l"(&map), "r"(shared_address(&barrier)),
                    "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]) : "memory");
}

// The same for the first BLOCKS blocks of the cluster, with one read of memory: in each of them the
// box comes to this place, and its bytes count for this barrier.
template <int BLOCKS>
__device__ __forceinline__ void tma_multicast(void* to, const TensorMap& map, MBarrier& barrier,
                                              const int (&at)[4])
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
                 ".multicast::cluster [%0], [%1, {%3, %4, %5, %6}], [%2], %7;"
                 :: "r"(shared_address(to)), "l"(&map), "r"(shared_address(&barrier)),
                    "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]),
                    "h"(static_cast<unsigned short>((1 << BLOCKS) - 1)) : "memory");
}

// Shows the copy engine what this thread has written to shared memory.
__device__ __forceinline__ void tma_store_fence()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Begins to copy a box from shared memory; elements outside the array are left out.
__device__ __forceinline__ void tma_store(const TensorMap& map, const void* from,
                                          const int (&at)[4])
{
    asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group"
                 " [%0, {%2, %3, %4, %5}], [%1];"
                 :: "l"(&map), "r"(shared_address(from)),
                    "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]) : "memory");
}

__device__ __forceinline__ void tma_store(const TensorMap& map, const void* from,
                                          const int (&at)[5])
{
    asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.tile.bulk_group"
                 " [%0, {%2, %3, %4, %5, %6}], [%1];"
                 :: "l"(&map), "r"(shared_address(from)),
                    "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]) : "memory");
}

__device__ __forceinline__ void tma_store_commit()
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Waits until all boxes that this thread has committed have been read: shared memory is free again.
__device__ __forceinline__ void tma_store_wait()
{
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// A barrier of some warps of a block alone; __syncthreads is number 0.
template <int NUMBER, int THREADS_THERE>
__device__ __forceinline__ void sync_some()
{
    asm volatile("bar.sync %0, %1;" :: "n"(NUMBER), "n"(THREADS_THERE) : "memory");
}

// --- products -----------------------------------------------------------------------------------

// All 128 threads of a warp group (four warps, the first one's number divisible by four) call these
// together.  The products are asynchronous: between the fence and the end of the wait nobody may
// touch the sums, nor write the tiles.

// Orders what this thread has done to its sums before the products that follow.
__device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits for all products that this warp has committed.  The compiler must not read the sums earlier.
template <int PARTS, int SUMS>
__device__ __forceinline__ void wgmma_wait(float (&sum)[PARTS][SUMS])
{
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < PARTS * SUMS; ++i) asm volatile("" : "+f"(sum[i / SUMS][i % SUMS]));
}

// Adds the products of two tiles in shared memory, of float16 or bfloat16: sum(64, columns) +=
// rows(64, 16) * columns(16, columns), with 64 or 128 columns.  Of `rows` the 16 are near in memory,
// of `columns` the columns; descriptors say where they lie.
//
// Thread t of the group holds in sum[4 * j + 2 * half + e]
//     row     t / 32 * 16 + t % 32 / 4 + 8 * half
//     column  8 * j + t % 4 * 2 + e
template <typename T>
__device__ __forceinline__ void wgmma(float (&sum)[32], unsigned long long rows,
                                             unsigned long long columns);
template <typename T>
__device__ __forceinline__ void wgmma(float (&sum)[64], unsigned long long rows,
                                             unsigned long long columns);

// After the descriptors: scale the sums by 1 (keep them), and both operands; `rows` is not
// transposed in memory, `columns` is.
#define EIGHT(i)                                                                            \
    "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3]), "+f"(sum[i + 4]),   \
        "+f"(sum[i + 5]), "+f"(sum[i + 6]), "+f"(sum[i + 7])

#define WGMMA_64(TYPE)                                                               \
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE " "            \
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "                                        \
                 "%8, %9, %10, %11, %12, %13, %14, %15, "                                   \
                 "%16, %17, %18, %19, %20, %21, %22, %23, "                                 \
                 "%24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, 1, 1, 1, 0, 1;"        \
                 : EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24)                                 \
                 : "l"(rows), "l"(columns))

#define WGMMA_128(TYPE)                                                              \
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " "           \
                 "{%0, %1, %2, %3, %4, %5, %6, %7, "                                        \
                 "%8, %9, %10, %11, %12, %13, %14, %15, "                                   \
                 "%16, %17, %18, %19, %20, %21, %22, %23, "                                 \
                 "%24, %25, %26, %27, %28, %29, %30, %31, "                                 \
                 "%32, %33, %34, %35, %36, %37, %38, %39, "                                 \
                 "%40, %41, %42, %43, %44, %45, %46, %47, "                                 \
                 "%48, %49, %50, %51, %52, %53, %54, %55, "                                 \
                 "%56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, 1, 1, 1, 0, 1;"        \
                 : EIGHT(0), EIGHT(8), EIGHT(16), EIGHT(24),                                \
                   EIGHT(32), EIGHT(40), EIGHT(48), EIGHT(56)                               \
                 : "l"(rows), "l"(columns))

template <>
__device__ __forceinline__ void wgmma<Float16>(float (&sum)[32], unsigned long long rows,
                                                      unsigned long long columns)
{
    WGMMA_64("f16");
}
template <>
__device__ __forceinline__ void wgmma<BFloat16>(float (&sum)[32], unsigned long long rows,
                                                       unsigned long long columns)
{
    WGMMA_64("bf16");
}
template <>
__device__ __forceinline__ void wgmma<Float16>(float (&sum)[64], unsigned long long rows,
                                                      unsigned long long columns)
{
    WGMMA_128("f16");
}
template <>
__device__ __forceinline__ void wgmma<BFloat16>(float (&sum)[64], unsigned long long rows,
                                                       unsigned long long columns)
{
    WGMMA_128("bf16");
}

#undef WGMMA_128
#undef WGMMA_64
#undef EIGHT

// --- registers ----------------------------------------------------------------------------------

// Moves registers between warp groups; every warp of the group calls it.
template <int COUNT>
__device__ __forceinline__ void decrease_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" :: "n"(COUNT));
}

template <int COUNT>
__device__ __forceinline__ void increase_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" :: "n"(COUNT));
}
