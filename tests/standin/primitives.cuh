// The twin of kernels/primitives.cuh for a machine without a GPU.
#pragma once

inline void* dynamic_shared() { return standin_shared(); }

inline int opaque(int value) { return value; }
inline int kept(int value) { return value; }

// --- copies from global to shared memory --------------------------------------------------------

template <int BYTES>
inline void copy_async(void* to, const void* from, int present)
{
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "as cp.async has it");
    standin_copy_async(to, from, BYTES, present);
}

template <int BYTES>
inline void copy_async_if(bool there, void* to, const void* from)
{
    copy_async<BYTES>(to, from, there ? BYTES : 0);
}

inline void copy_async_commit() { standin_copy_async_commit(); }

template <int PENDING>
inline void copy_async_wait() { standin_copy_async_wait(PENDING); }

// --- matrices spread over a warp ----------------------------------------------------------------

// Reads my row here, where the sanitizers look on.
template <int COUNT>
inline void load_matrices(unsigned int (&to)[COUNT], const void* row, bool transposed = false)
{
    static_assert(COUNT == 1 || COUNT == 2 || COUNT == 4, "as ldmatrix has it");
    unsigned int mine[4] = {};
    if (threadIdx.x % 32 < COUNT * 8) {
        standin_aligned(row, 16);
        standin_in_shared(row, 16);
        memcpy(mine, row, sizeof mine);
    }
    standin_load_matrices(to, mine, COUNT, transposed);
}

template <int COUNT>
inline void load_matrices_transposed(unsigned int (&to)[COUNT], const void* row)
{
    load_matrices(to, row, true);
}

inline void mma_f16(float (&sum)[4], const unsigned int (&a)[4], const unsigned int (&b)[2])
{
    standin_mma(Matrices::F16, sum, a, b);
}

inline void mma_bf16(float (&sum)[4], const unsigned int (&a)[4], const unsigned int (&b)[2])
{
    standin_mma(Matrices::BF16, sum, a, b);
}

inline void mma_tf32(float (&sum)[4], const unsigned int (&a)[4], const unsigned int (&b)[2])
{
    standin_mma(Matrices::TF32, sum, a, b);
}

inline void mma_f16_k8(float (&sum)[4], unsigned int a0, unsigned int a1, unsigned int b)
{
    const unsigned int rows[4] = {a0, a1, 0, 0}, columns[2] = {b, 0};
    standin_mma(Matrices::F16, sum, rows, columns);
}

// --- conversions --------------------------------------------------------------------------------

inline float float_to_tf32(float value)
{
    unsigned int bits;
    memcpy(&bits, &value, sizeof bits);
    if (std::isfinite(value)) bits = (bits + 0x1000) & ~0x1fffu;
    memcpy(&value, &bits, sizeof value);
    return value;
}

inline float half_to_float(unsigned short bits)
{
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return static_cast<float>(half);
}

inline unsigned short float_to_half(float value)
{
    const _Float16 half = static_cast<_Float16>(value);
    unsigned short bits;
    memcpy(&bits, &half, sizeof bits);
    return bits;
}
