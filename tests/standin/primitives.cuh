// The twin of kernels/primitives.cuh for a machine without a GPU.
#pragma once

inline void* dynamic_shared() { return standin_shared(); }

template <typename T>
inline void copy_async(void* to, const T* from, bool there)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16, "as cp.async has it");
    standin_copy_async(to, from, sizeof(T), there);
}

inline void copy_async_wait() { standin_copy_async_wait(); }

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
