// What a warp does with matrices that are spread over its lanes, as PTX defines the layouts.
//
// Each function sees what all lanes gave and says what all lanes take.  Write lane = 4 g + t.
// ThreadSanitizer must see none of that, and it sees every memcpy that is a call.
#pragma once
#include "cuda.h"

#include <cstdint>

struct Words {
    std::uint32_t word[10];
};

// ldmatrix: lane 8 i + r gave row r of matrix i, 4 words.  Of each matrix a lane takes word t of
// row g.
inline void load_matrices(const Words (&given)[32], Words (&taken)[32])
{
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i)
            taken[lane].word[i] = given[8 * i + lane / 4].word[lane % 4];
}

// With .trans it takes elements g of rows 2 t and 2 t + 1; an element is half a word.
inline void load_matrices_transposed(const Words (&given)[32], Words (&taken)[32])
{
    const auto element = [&](int matrix, int row, int column) {
        return given[8 * matrix + row].word[column / 2] >> 16 * (column % 2) & 0xffff;
    };
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i) {
            const int g = lane / 4, t = lane % 4;
            taken[lane].word[i] = element(i, 2 * t, g) | element(i, 2 * t + 1, g) << 16;
        }
}

inline double with_bits(double value, std::uint64_t mask)
{
    std::uint64_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    bits &= mask;
    __builtin_memcpy(&value, &bits, sizeof bits);
    return value;
}

// Adds exact products to the sums of a row as the coarsest tensor cores may: four at a time, all cut
// off below the last of 24 bits of the largest, and the new sum cut off as well.  No branches, so that
// the compiler takes several columns at once.
template <int COLUMNS>
void add_products(float (&__restrict__ sum)[COLUMNS], const float* __restrict__ a,
                  const float (*__restrict__ b)[COLUMNS], int depth)
{
    const auto size = [](double one) { return __builtin_fabs(one); };
    const auto larger = [](double one, double other) { return one > other ? one : other; };
    for (int k = 0; k < depth; k += 4)
        for (int j = 0; j < COLUMNS; ++j) {
            const double p0 = double(a[k]) * b[k][j], p1 = double(a[k + 1]) * b[k + 1][j];
            const double p2 = double(a[k + 2]) * b[k + 2][j], p3 = double(a[k + 3]) * b[k + 3][j];
            const double s = sum[j], whole = s + p0 + p1 + p2 + p3;
            const double largest = larger(
                larger(size(p0), size(p1)), larger(larger(size(p2), size(p3)), size(s)));
            const double power = with_bits(largest, 0x7ffull << 52);  // of two, below the largest
            const double last = power * 0x1p-23, per_last = 0x1p23 / power;
            const auto cut = [=](double one) { return __builtin_trunc(one * per_last) * last; };
            const double kept = cut(s) + cut(p0) + cut(p1) + cut(p2) + cut(p3);
            const bool usual = (size(whole) < HUGE_VAL) & (largest > 0);
            sum[j] = static_cast<float>(usual ? with_bits(kept, ~0ull << 29) : whole);
        }
}

// mma: words 0 to 3 are of a, 4 and 5 of b, 6 to 9 of the sum.  Along K a word holds `elements`.
template <typename Element>
void multiply(const Words (&given)[32], Words (&taken)[32], int elements, Element element)
{
    float a[16][16], b[16][8], sum[16][8];
    const auto place = [&sum](int lane, int i) {
        return &sum[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    };
    for (int lane = 0; lane < 32; ++lane) {
        for (int half = 0; half < 2; ++half)
            for (int e = 0; e < elements; ++e) {
                const int g = lane / 4, k = (half * 4 + lane % 4) * elements + e;
                a[g][k] = element(given[lane].word[2 * half], e);
                a[g + 8][k] = element(given[lane].word[2 * half + 1], e);
                b[k][g] = element(given[lane].word[4 + half], e);
            }
        for (int i = 0; i < 4; ++i)
            __builtin_memcpy(place(lane, i), &given[lane].word[6 + i], sizeof(float));
    }
    for (int row = 0; row < 16; ++row) add_products(sum[row], a[row], b, 8 * elements);
    for (int lane = 0; lane < 32; ++lane)
        for (int i = 0; i < 4; ++i)
            __builtin_memcpy(&taken[lane].word[i], place(lane, i), sizeof(float));
}

inline float as_float(std::uint32_t bits)
{
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

inline void mma_f16(const Words (&given)[32], Words (&taken)[32])
{
    multiply(given, taken, 2, [](std::uint32_t word, int e) {
        const std::uint16_t bits = word >> 16 * e;
        _Float16 value;
        __builtin_memcpy(&value, &bits, sizeof value);
        return static_cast<float>(value);
    });
}

inline void mma_bf16(const Words (&given)[32], Words (&taken)[32])
{
    multiply(given, taken, 2,
             [](std::uint32_t word, int e) { return as_float(e ? word & 0xffff0000 : word << 16); });
}

// The last 13 bits of an element are not looked at.
inline void mma_tf32(const Words (&given)[32], Words (&taken)[32])
{
    multiply(given, taken, 1, [](std::uint32_t word, int) { return as_float(word & ~0x1fffu); });
}
