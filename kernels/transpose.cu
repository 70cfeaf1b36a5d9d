// transpose: a copy of an array in another order of memory, for a kernel that reads it in that order.
//
//     copy[b, j, i] = array[b, i, j]
//
// A block takes SIDE x SIDE elements of one of the matrices through shared memory: neighbouring threads
// read neighbours along j, and write neighbours along i.
#include "prologue.cuh"
#include "primitives.cuh"
#include "arith.cuh"
#include "geometry.cuh"

constexpr int SIDE = ROWS;

struct Square {
    Element element[SIDE][SIDE + 4 / sizeof(Element)];
};
static_assert(sizeof(Square) == SHARED_BYTES, "Python launches with SHARED_BYTES");
static_assert(sizeof(Square) / SIDE / 4 % 2 == 1, "a column lies in as many banks as it can");
static_assert(THREADS % SIDE == 0, "threads take whole rows");

struct Transposition {
    Index i_size, j_size;
    Division i_blocks, j_blocks;
    Index b_step, i_step, j_step;  // in the array
    Index b_copied, j_copied;      // in the copy, whose i are neighbours
};

extern "C" __global__ void __launch_bounds__(THREADS)
transpose(const Element* __restrict__ array, Element* __restrict__ copy, const Transposition t)
{
    Square& square = *static_cast<Square*>(dynamic_shared());

    // Which matrix, and which part of it?
    Index i_block, j_block;
    const Index rest = divide(static_cast<Index>(blockIdx.x), t.i_blocks, i_block);
    const Index b = divide(rest, t.j_blocks, j_block);
    const Index i_begin = i_block * SIDE, j_begin = j_block * SIDE;

    const int near = threadIdx.x % SIDE;
#pragma unroll
    for (int row = 0; row < SIDE; row += THREADS / SIDE) {
        const int far = row + threadIdx.x / SIDE;
        const Index i = i_begin + far, j = j_begin + near;
        if (i < t.i_size && j < t.j_size)
            square.element[far][near] = array[b * t.b_step + i * t.i_step + j * t.j_step];
    }
    __syncthreads();
#pragma unroll
    for (int row = 0; row < SIDE; row += THREADS / SIDE) {
        const int far = row + threadIdx.x / SIDE;
        const Index i = i_begin + near, j = j_begin + far;
        if (i < t.i_size && j < t.j_size)
            copy[b * t.b_copied + j * t.j_copied + i] = square.element[near][far];
    }
}
