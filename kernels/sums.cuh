// Sums that many threads make together, in a fixed order.
#pragma once

__device__ __forceinline__ Index min_of(Index a, Index b)
{
    return a < b ? a : b;
}

// Adds pairwise the sums of all threads with the same number modulo LANES.  `shared` holds COUNT
// times THREADS elements; after a barrier each of the COUNT totals of a lane stands at
// shared[number * THREADS + lane].
template <int COUNT, int LANES>
__device__ __forceinline__ void add_up(const Accumulator (&sum)[COUNT], Accumulator* shared)
{
#pragma unroll
    for (int e = 0; e < COUNT; ++e) shared[e * THREADS + threadIdx.x] = sum[e];
    __syncthreads();
#pragma unroll 1
    for (int half = THREADS / 2; half >= LANES; half /= 2) {
        for (int at = threadIdx.x; at < COUNT * half; at += THREADS) {
            Accumulator* mine = shared + at / half * THREADS + at % half;
            add(*mine, mine[half]);
        }
        __syncthreads();
    }
}
