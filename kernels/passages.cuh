// Passages: results of runs leave through shared memory, where neighbouring threads find neighbouring
// vectors, whatever the stride.
#pragma once

// A row of a thread's outputs is OUT_VECTORS vectors.  Where that is even, one place in each 128
// bytes is left free, so that the threads' vectors lie in different banks.
constexpr int OUT_VECTORS = RUN / OUT_VECTOR;
static_assert(OUT_VECTORS * OUT_VECTOR == RUN, "a run is made of whole vectors");
constexpr int LINE = OUT_VECTORS % 2 == 0 ? 128 / sizeof(OutVector) : 1 << 30;

__device__ __forceinline__ constexpr int place(int vector) { return vector + vector / LINE; }

// A row of all threads' outputs on its way out.
struct Passage {
    alignas(16) OutVector vector[place(THREADS * OUT_VECTORS - 1) + 1];
    alignas(16) Run run[THREADS];
};
using Passages = Passage[ROWS_OUT > 1 ? 2 : 1];

// Stores row by row.  While one is on its way out, the next may already come in.
__device__ __forceinline__ void store_runs(const Accumulator (&sum)[PHASES_Y][OUT_CHANNELS][RUN],
                                           const Mine& mine, Index channel,
                                           const Element* __restrict__ bias,
                                           Element* __restrict__ out, const Params& p,
                                           Passages& passages)
{
    const Axis& last = p.axis[AXES - 1];
    const Index y = AXES > 1 ? p.axis[Y].out_stride : 0, z = AXES > 2 ? p.axis[0].out_stride : 0;
    const bool vectors = in_vectors(OUT_VECTOR, p.out_n, p.out_m, y, z, last.out_stride,
                                    last.out_size.divisor);
    const Run first = outputs_of(mine, channel, p);
#pragma unroll
    for (int row = 0; row < ROWS_OUT; ++row) {
        const int phase = row / OUT_CHANNELS, m = row % OUT_CHANNELS;
        const Accumulator added = bias ? widen(bias[(channel + m) * p.bias_m]) : Accumulator{};
        Passage& passage = passages[row % 2];
        passage.run[threadIdx.x] = outputs_of(first, mine, phase, m, p);
#pragma unroll
        for (int v = 0; v < OUT_VECTORS; ++v) {
            OutVector some;
#pragma unroll
            for (int e = 0; e < OUT_VECTOR; ++e)
                finish(sum[phase][m][v * OUT_VECTOR + e], added, some.of[e]);
            passage.vector[place(threadIdx.x * OUT_VECTORS + v)] = some;
        }
        __syncthreads();
        if (vectors) {
#pragma unroll
            for (int k = 0; k < OUT_VECTORS; ++k) {
                const int i = k * THREADS + threadIdx.x, e = i % OUT_VECTORS * OUT_VECTOR;
                const Run run = passage.run[i / OUT_VECTORS];
                if (e < run.count)
                    *reinterpret_cast<OutVector*>(out + (run.at + e)) = passage.vector[place(i)];
            }
        } else {
#pragma unroll 1
            for (int k = 0; k < RUN; ++k) {
                const int i = k * THREADS + threadIdx.x, e = i % RUN;
                const Run run = passage.run[i / RUN];
                if (e < run.count)
                    out[run.at + e * last.out_stride] =
                        passage.vector[place(i / OUT_VECTOR)].of[i % OUT_VECTOR];
            }
        }
    }
    __syncthreads();
}
