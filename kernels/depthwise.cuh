// For kernels that know the window: its taps at compile time, rows of outputs and of inputs, and
// elements that are moved together.
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

// --- rows along the last axis, at run time ------------------------------------------------------

// A row of outputs in PHASES_Y phases of Y; axes that are not there are 0.
struct OutRow {
    Index n;         // the item
    Index y, z;      // the outputs, in phase 0 of all
    Index q_y, q_z;
    int r_y, r_z;    // 0 where there are all phases
};

// Rows are counted as they lie in a result of one channel.
__device__ __forceinline__ void find(Index number, const Params& p, OutRow& row)
{
    if constexpr (AXES > 1) {
        const Axis& axis = p.axis[Y];
        if constexpr (PHASES_Y > 1) {
            number = divide(number, axis.q_size, row.q_y);
            row.y = row.q_y * STRIDE_Y - axis.r_begin;
        } else {
            number = divide(number, axis.out_size, row.y);
            row.q_y = (row.y + axis.r_begin) / STRIDE_Y;
            row.r_y = static_cast<int>((row.y + axis.r_begin) % STRIDE_Y);
        }
        row.q_y += axis.q_begin;
    }
    if constexpr (AXES > 2) {
        const Axis& axis = p.axis[0];
        number = divide(number, axis.out_size, row.z);
        row.q_z = axis.q_begin + (row.z + axis.r_begin) / STRIDE_Z;
        row.r_z = static_cast<int>((row.z + axis.r_begin) % STRIDE_Z);
    }
    row.n = number;
}

// Is the row of inputs at these shifts there?  Adds its offset to `at`.
__device__ __forceinline__ bool input_row(const OutRow& row, int jz, int jy, const Params& p,
                                          Index& at)
{
    bool there = true;
    at += row.n * p.x_n;
    if constexpr (AXES > 1) {
        const Index i = row.q_y - WindowY::shift(jy);
        there = inside(i, p.axis[Y].in_size);
        at += i * p.axis[Y].x_stride;
    }
    if constexpr (AXES > 2) {
        const Index i = row.q_z - WindowZ::shift(jz);
        there = there && inside(i, p.axis[0].in_size);
        at += i * p.axis[0].x_stride;
    }
    return there;
}

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

__device__ __forceinline__ void put(XWords& words, int e, Element one)
{
    if constexpr (sizeof one == 2) {
        unsigned short half;
        memcpy(&half, &one, sizeof half);
        unsigned int& word = words.of[e / 2];
        word = word & 0xffffu << (1 - e % 2) * 16 | static_cast<unsigned int>(half) << e % 2 * 16;
    } else {
        memcpy(&words.of[e * sizeof one / 4], &one, sizeof one);
    }
}
