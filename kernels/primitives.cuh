// The hardware instructions that the kernels use, each as a small function.
//
// Nothing but this file and hopper.cuh holds PTX, so a machine without a GPU can run the kernels as
// they stand: the tests put a twin of each in its place.
#pragma once

// Shared memory whose size is given at the launch.
__device__ __forceinline__ void* dynamic_shared()
{
    extern __shared__ __align__(16) unsigned char shared_bytes[];
    return shared_bytes;
}

__device__ __forceinline__ unsigned int shared_address(const void* shared)
{
    return static_cast<unsigned int>(__cvta_generic_to_shared(shared));
}

// Returns the value.  The compiler no longer knows what it follows from.
__device__ __forceinline__ int opaque(int value)
{
    asm volatile("" : "+r"(value));
    return value;
}

// Returns the value, and keeps it in a register: the compiler will not work it out anew in each round
// of a loop, since it does not know that a lane shuffles it to itself.  All lanes of a warp must come
// here together.
__device__ __forceinline__ int kept(int value)
{
    asm volatile("shfl.sync.bfly.b32 %0, %0, 0, 31, -1;" : "+r"(value));
    return value;
}

// --- copies from global to shared memory that pass through no register: sm_80 and later ---------

// Begins to copy BYTES: 4, 8 or 16, and both addresses are multiples of that.  Only the first
// `present` bytes are read, and zeros are written in place of the rest.
template <int BYTES>
__device__ __forceinline__ void copy_async(void* to, const void* from, int present)
{
    if constexpr (BYTES == 16)  // through L2 alone
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                     :: "r"(shared_address(to)), "l"(from), "r"(present) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                     :: "r"(shared_address(to)), "l"(from), "n"(BYTES), "r"(present) : "memory");
}

// Begins to copy all BYTES, or to write as many zeros.  A size would be worked out for each copy.
template <int BYTES>
__device__ __forceinline__ void copy_async_if(bool there, void* to, const void* from)
{
    if constexpr (BYTES == 16)
        asm volatile("{ .reg .pred absent; setp.eq.s32 absent, %2, 0;\n\t"
                     "cp.async.cg.shared.global [%0], [%1], 16, absent; }"
                     :: "r"(shared_address(to)), "l"(from), "r"(int(there)) : "memory");
    else
        asm volatile("{ .reg .pred absent; setp.eq.s32 absent, %3, 0;\n\t"
                     "cp.async.ca.shared.global [%0], [%1], %2, absent; }"
                     :: "r"(shared_address(to)), "l"(from), "n"(BYTES), "r"(int(there))
                     : "memory");
}

// Makes a group of the copies that this thread has begun since its last group.
__device__ __forceinline__ void copy_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits for all groups of this thread but the newest PENDING.  This thread then finds the data
// in their place, the others after a barrier.
template <int PENDING>
__device__ __forceinline__ void copy_async_wait()
{
    asm volatile("cp.async.wait_group %0;" :: "n"(PENDING) : "memory");
}

// --- matrices spread over a warp ----------------------------------------------------------------
//
// All 32 lanes must come to these functions together.  Write lane = 4 g + t with t < 4.  A register
// of 32 bits holds two 16-bit elements that follow each other, the first one in its low half.

// Loads COUNT (1, 2 or 4) matrices of 8 rows of 16 bytes from shared memory.  Lane 8 i + r gives the
// address of row r of matrix i, a multiple of 16; each lane receives the t-th 4 bytes of row g.
// sm_75 and later.
template <int COUNT>
__device__ __forceinline__ void load_matrices(unsigned int (&to)[COUNT], const void* row)
{
    const unsigned int at = shared_address(row);
    if constexpr (COUNT == 1)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                     : "=r"(to[0]) : "r"(at) : "memory");
    if constexpr (COUNT == 2)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                     : "=r"(to[0]), "=r"(to[1]) : "r"(at) : "memory");
    if constexpr (COUNT == 4)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
}

// The same with each matrix of 8 x 8 16-bit elements transposed: each lane receives elements g of
// rows 2 t and 2 t + 1.
template <int COUNT>
__device__ __forceinline__ void load_matrices_transposed(unsigned int (&to)[COUNT], const void* row)
{
    const unsigned int at = shared_address(row);
    if constexpr (COUNT == 1)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                     : "=r"(to[0]) : "r"(at) : "memory");
    if constexpr (COUNT == 2)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(to[0]), "=r"(to[1]) : "r"(at) : "memory");
    if constexpr (COUNT == 4)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
}

// sum += a * b with a of 16 x K, b of K x 8 and sum of 16 x 8.  A lane holds
//
//     of sum     (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1)
//     of a       row g, row g + 8, and for the second half of K row g, row g + 8
//     of b       column g, and for the second half of K column g
//
// in each of which it has the t-th 4 bytes of 16 along K, so `load_matrices` loads what has K
// nearest in memory.  Products are exact; sums are cut off, not rounded, at about 24 bits.

// K = 16, sm_80 and later.
__device__ __forceinline__ void mma_f16(float (&sum)[4], const unsigned int (&a)[4],
                                        const unsigned int (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// K = 16, sm_80 and later.
__device__ __forceinline__ void mma_bf16(float (&sum)[4], const unsigned int (&a)[4],
                                         const unsigned int (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// K = 8 of 32-bit elements, whose last 13 bits are not looked at.  sm_80 and later.
__device__ __forceinline__ void mma_tf32(float (&sum)[4], const unsigned int (&a)[4],
                                         const unsigned int (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// K = 8, the first half of `mma_f16`.  sm_75 and later.
__device__ __forceinline__ void mma_f16_k8(float (&sum)[4], unsigned int a0, unsigned int a1,
                                           unsigned int b)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a0), "r"(a1), "r"(b));
}

// --- conversions --------------------------------------------------------------------------------

// Rounds to the 11 bits of TF32: to nearest, ties away from zero.  sm_80 and later.
__device__ __forceinline__ float float_to_tf32(float value)
{
    unsigned int bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return __uint_as_float(bits);
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

// Likewise.  sm_80 and later.
__device__ __forceinline__ unsigned short float_to_bfloat16(float value)
{
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
