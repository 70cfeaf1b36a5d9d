// What a kernel finds around it on a GPU, for kernels compiled as ordinary C++.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __grid_constant__

struct Index3 {
    unsigned int x, y, z;
};

// Set by runtime.cpp whenever it lets a thread run.
extern "C" Index3 threadIdx, blockIdx, gridDim;

enum class Matrices { F16, BF16, TF32 };

extern "C" void standin_barrier();
extern "C" void standin_warp_barrier();
extern "C" void* standin_shared();
extern "C" void standin_aligned(const void* address, std::size_t bytes);
extern "C" void standin_in_shared(const void* address, std::size_t bytes);
extern "C" void standin_copy_async(void* to, const void* from, int bytes, int present);
extern "C" void standin_copy_async_commit();
extern "C" void standin_copy_async_wait(unsigned int pending);
extern "C" void standin_load_matrices(unsigned int* to, const unsigned int (&row)[4], int count,
                                      bool transposed);
extern "C" void standin_mma(Matrices kind, float (&sum)[4], const unsigned int (&a)[4],
                            const unsigned int (&b)[2]);

extern "C" unsigned int standin_shared_address(const void* p);
extern "C" void standin_cluster_barrier();
extern "C" void standin_mbarrier_init(void* barrier, int arrivals);
extern "C" void standin_mbarrier_init_fence();
extern "C" void standin_mbarrier_arrive(void* barrier, int bytes);
extern "C" void standin_mbarrier_arrive_in(unsigned int block, void* barrier);
extern "C" void standin_mbarrier_wait(void* barrier, int parity);
extern "C" void standin_tma_load(void* to, const void* map, void* barrier, const int* at, int rank);
extern "C" void standin_tma_multicast(unsigned int blocks, void* to, const void* map, void* barrier,
                                      const int* at, int rank);
extern "C" void standin_tma_store_fence();
extern "C" void standin_tma_store(const void* map, const void* from, const int* at, int rank);
extern "C" void standin_tma_store_commit();
extern "C" void standin_tma_store_wait();
extern "C" void standin_sync_some(int number, unsigned int threads);
extern "C" void standin_set_registers(unsigned int count, bool more);
extern "C" void standin_wgmma_fence();
extern "C" void standin_wgmma(float* sum, int columns, unsigned long long rows_at,
                              unsigned long long columns_at, bool bfloat16);
extern "C" void standin_wgmma_commit();
extern "C" void standin_wgmma_wait();

inline void __syncthreads() { standin_barrier(); }

// A barrier that tells everybody whether anybody said yes.
__attribute__((no_sanitize_thread)) inline int __syncthreads_or(int mine)
{
    static int anybody;
    anybody |= mine;
    standin_barrier();
    const int result = anybody;
    standin_barrier();
    anybody = 0;
    standin_barrier();
    return result;
}
inline void __syncwarp() { standin_warp_barrier(); }

// Calls a kernel with the arguments that an array of pointers points to, as a launch does.
template <typename... Arguments, std::size_t... I>
void call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>)
{
    kernel(*static_cast<Arguments*>(arguments[I])...);
}
template <typename... Arguments>
void call(void (*kernel)(Arguments...), void** arguments)
{
    call(kernel, arguments, std::index_sequence_for<Arguments...>{});
}
