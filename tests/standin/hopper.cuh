// The twin of kernels/hopper.cuh for a machine without a GPU; hopper.h does the work.
#pragma once

inline void* aligned_shared() { return standin_shared(); }

// As on a GPU, an address in shared memory is a small number.
inline unsigned int shared_address(const void* p) { return standin_shared_address(p); }

inline void cluster_sync() { standin_cluster_barrier(); }

struct MBarrier {
    unsigned long long bits;
};

inline void mbarrier_init(MBarrier& barrier, int arrivals)
{
    standin_mbarrier_init(&barrier, arrivals);
}
inline void mbarrier_init_fence() { standin_mbarrier_init_fence(); }
inline void mbarrier_arrive(MBarrier& barrier) { standin_mbarrier_arrive(&barrier, 0); }
inline void mbarrier_arrive_expect_tx(MBarrier& barrier, int bytes)
{
    standin_mbarrier_arrive(&barrier, bytes);
}
inline void mbarrier_arrive_in(int block, MBarrier& barrier)
{
    standin_mbarrier_arrive_in(block, &barrier);
}
inline void mbarrier_wait(MBarrier& barrier, int parity) { standin_mbarrier_wait(&barrier, parity); }

// What the driver makes of an array; the test's device fills it in.
struct TensorMap {
    unsigned char opaque[128];
};

template <int RANK>
inline void tma_load(void* to, const TensorMap& map, MBarrier& barrier, const int (&at)[RANK])
{
    standin_tma_load(to, &map, &barrier, at, RANK);
}

template <int BLOCKS>
inline void tma_multicast(void* to, const TensorMap& map, MBarrier& barrier, const int (&at)[4])
{
    standin_tma_multicast((1u << BLOCKS) - 1, to, &map, &barrier, at, 4);
}

inline void tma_store_fence() { standin_tma_store_fence(); }
template <int RANK>
inline void tma_store(const TensorMap& map, const void* from, const int (&at)[RANK])
{
    standin_tma_store(&map, from, at, RANK);
}
inline void tma_store_commit() { standin_tma_store_commit(); }
inline void tma_store_wait() { standin_tma_store_wait(); }

template <int NUMBER, int THREADS_THERE>
inline void sync_some() { standin_sync_some(NUMBER, THREADS_THERE); }

inline void wgmma_fence() { standin_wgmma_fence(); }
inline void wgmma_commit() { standin_wgmma_commit(); }
template <typename Sums>
inline void wgmma_wait(Sums&) { standin_wgmma_wait(); }

template <typename T>
constexpr bool IS_BFLOAT16 = false;
template <>
constexpr bool IS_BFLOAT16<BFloat16> = true;

template <typename T, int SUMS>
inline void wgmma(float (&sum)[SUMS], unsigned long long rows, unsigned long long columns)
{
    static_assert(SUMS == 32 || SUMS == 64, "64 or 128 columns");
    standin_wgmma(sum, 2 * SUMS, rows, columns, IS_BFLOAT16<T>);
}

template <int COUNT>
inline void decrease_registers() { standin_set_registers(COUNT, false); }
template <int COUNT>
inline void increase_registers() { standin_set_registers(COUNT, true); }
