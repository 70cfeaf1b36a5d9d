// What a kernel finds around it on a GPU, for kernels compiled as ordinary C++.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index3 {
    unsigned int x, y, z;
};

// Set by runtime.cpp whenever it lets a thread run.
extern "C" Index3 threadIdx, blockIdx;

extern "C" void standin_barrier();
extern "C" void* standin_shared();
extern "C" void standin_copy_async(void* to, const void* from, std::size_t bytes, bool there);
extern "C" void standin_copy_async_wait();

inline void __syncthreads() { standin_barrier(); }

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
