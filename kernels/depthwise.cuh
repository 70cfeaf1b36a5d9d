// For kernels that know the window: its taps at compile time, rows of outputs and of inputs, and
// elements that are moved together.
#pragma once

// --- the window along one axis ------------------------------------------------------------------
//
// The equations of geometry.cuh in constants: where a shift is known to the compiler, so is its tap.
// The adjoint writes one phase, and its inputs lie IN_STRIDE apart, in the order of the taps.

template <int KERNEL, int STRIDE, int DILATION>
struct Window {
    static constexpr int PHASES = ADJOINT ? 1 : STRIDE;
    static constexpr int IN_STRIDE = ADJOINT ? STRIDE : 1;
    static constexpr bool DENSE = DILATION <= PHASES;
    static constexpr int LAST_SHIFT = (KERNEL - 1) * DILATION / PHASES;
    static constexpr int SHIFTS = DENSE ? LAST_SHIFT + 1 : KERNEL;
    static constexpr bool EVERY_TAP = DILATION == 1 && KERNEL % PHASES == 0;  // in every phase

    static __device__ __forceinline__ constexpr int shift(int j)
    {
        return DENSE ? j : j * DILATION / PHASES;
    }
    static __device__ __forceinline__ constexpr int tap(int j, int r)
    {
        const int reached = shift(j) * PHASES + r;
        return reached % DILATION == 0 && reached / DILATION < KERNEL ? reached / DILATION : -1;
    }

    // Of the inputs that a window at q covers, which is the first?  And which of them, counted from
    // there, does the q-th window from here read at the j-th shift?
    static __device__ __forceinline__ Index first(Index q, const Axis& axis)
    {
        return ADJOINT ? q * IN_STRIDE - axis.pad_begin : q - LAST_SHIFT;
    }
    static __device__ __forceinline__ constexpr int input(int q, int j)
    {
        return q * IN_STRIDE + (ADJOINT ? shift(j) : LAST_SHIFT - shift(j));
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
            row.y = row.q_y * WindowY::PHASES - axis.r_begin;
        } else {
            number = divide(number, axis.out_size, row.y);
            row.q_y = (row.y + axis.r_begin) / WindowY::PHASES;
            row.r_y = static_cast<int>((row.y + axis.r_begin) % WindowY::PHASES);
        }
        row.q_y += axis.q_begin;
    }
    if constexpr (AXES > 2) {
        const Axis& axis = p.axis[0];
        number = divide(number, axis.out_size, row.z);
        row.q_z = axis.q_begin + (row.z + axis.r_begin) / WindowZ::PHASES;
        row.r_z = static_cast<int>((row.z + axis.r_begin) % WindowZ::PHASES);
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
        const Axis& axis = p.axis[Y];
        const Index i = WindowY::first(row.q_y, axis) + WindowY::input(0, jy);
        there = inside(i, axis.in_size);
        at += i * axis.x_stride;
    }
    if constexpr (AXES > 2) {
        const Axis& axis = p.axis[0];
        const Index i = WindowZ::first(row.q_z, axis) + WindowZ::input(0, jz);
        there = there && inside(i, axis.in_size);
        at += i * axis.x_stride;
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
