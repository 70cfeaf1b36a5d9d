// For the two depthwise kernels: the window at compile time, and elements that are moved together.
#pragma once

// --- the window along one axis ------------------------------------------------------------------
//
// The equations of geometry.cuh in constants: where a shift is known to the compiler, so is its tap.

template <int KERNEL, int STRIDE, int DILATION>
struct Window {
    static constexpr bool DENSE = DILATION <= STRIDE;
    static constexpr int LAST_SHIFT = (KERNEL - 1) * DILATION / STRIDE;
    static constexpr int SHIFTS = DENSE ? LAST_SHIFT + 1 : KERNEL;
    static constexpr bool EVERY_TAP = DILATION == 1 && KERNEL % STRIDE == 0;  // in every phase

    static __device__ __forceinline__ constexpr int shift(int j)
    {
        return DENSE ? j : j * DILATION / STRIDE;
    }
    static __device__ __forceinline__ constexpr int tap(int j, int r)
    {
        const int reached = shift(j) * STRIDE + r;
        return reached % DILATION == 0 && reached / DILATION < KERNEL ? reached / DILATION : -1;
    }
};
using WindowX = Window<KERNEL_X, STRIDE_X, DILATION_X>;
using WindowY = Window<KERNEL_Y, STRIDE_Y, DILATION_Y>;
using WindowZ = Window<KERNEL_Z, STRIDE_Z, DILATION_Z>;

constexpr int Y = AXES > 1 ? AXES - 2 : 0;  // its place among the axes

// --- vectors ------------------------------------------------------------------------------------

template <typename T, int COUNT>
struct alignas(COUNT * sizeof(T)) Vector {
    T of[COUNT];
};
constexpr bool X_IN_WORDS = X_VECTOR * sizeof(Element) % 4 == 0;
using XWords = Vector<unsigned int, X_IN_WORDS ? X_VECTOR * sizeof(Element) / 4 : 1>;
using OutVector = Vector<Element, OUT_VECTOR>;

// One element of what was loaded as whole words.  Halves of words are taken out last of all, so that
// nothing moves them about.
__device__ __forceinline__ Element element(const XWords& words, int e)
{
    Element one;
    const unsigned short half = static_cast<unsigned short>(words.of[e / 2] >> e % 2 * 16);
    if constexpr (sizeof one == sizeof half)
        memcpy(&one, &half, sizeof half);
    else
        memcpy(&one, &words.of[e * sizeof one / 4], sizeof one);
    return one;
}
