// The hardware instructions that the kernels use, each as a small function.
//
// Nothing else holds PTX, so a machine without a GPU can run the kernels as they stand: the tests
// put a twin of this file in its place.
#pragma once

// Shared memory whose size is given at the launch.
__device__ __forceinline__ void* dynamic_shared()
{
    extern __shared__ __align__(16) unsigned char shared_bytes[];
    return shared_bytes;
}

// Copies one element from global to shared memory without passing through registers, or writes
// zeros if it is not there.  `to` holds it after copy_async_wait (for this thread) and a barrier
// (for the others).  sm_80 and later.
template <typename T>
__device__ __forceinline__ void copy_async(void* to, const T* from, bool there)
{
    const unsigned int address = static_cast<unsigned int>(__cvta_generic_to_shared(to));
    const int bytes = there ? sizeof(T) : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"(address), "l"(from), "n"(sizeof(T)), "r"(bytes) : "memory");
}

// Waits for all copies that this thread has begun.  sm_80 and later.
__device__ __forceinline__ void copy_async_wait()
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

__device__ __forceinline__ float half_to_float(unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// Rounds to nearest, ties to even.
__device__ __forceinline__ unsigned short float_to_half(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
