// The transposed convolution as a matrix product: what its rows and columns are, and what a tile
// holds at each of them.
//
//     rows     (n, q)        every output with this q, in all phases, reads inputs around it
//     columns  (phase, m)    the outputs that share a q
#pragma once

struct Row {
    Index n;  // -1 beyond the last row
    Index q[AXES];
};

struct Column {
    Index m;  // -1 where a phase is filled up, and beyond the last column
    Index r[AXES];
};

__device__ __forceinline__ Row row_at(Index index, const Params& p)
{
    Row row = {-1, {}};
    if (index >= p.rows) return row;
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) {
        index = divide(index, p.axis[a].q_size, row.q[a]);
        row.q[a] += p.axis[a].q_begin;
    }
    row.n = index;
    return row;
}

// With LAST_PHASES_NEAREST the columns are (other phases, m, phase of the last axis).
template <bool LAST_PHASES_NEAREST = false>
__device__ __forceinline__ Column column_at(Index index, const Params& p)
{
    Column column = {-1, {}};
    Index m, phase[AXES];
    if (LAST_PHASES_NEAREST)
        index = divide(index, p.axis[AXES - 1].phases, phase[AXES - 1]);
    index = divide(index, p.phase_columns, m);
#pragma unroll
    for (int a = AXES - (LAST_PHASES_NEAREST ? 2 : 1); a >= 0; --a)
        index = divide(index, p.axis[a].phases, phase[a]);
#pragma unroll
    for (int a = 0; a < AXES; ++a)
        divide(phase[a] + p.axis[a].r_begin, p.axis[a].stride, column.r[a]);
    if (index == 0 && m < p.M.divisor) column.m = m;
    return column;
}

// Where is the input of this row at a shift?  False if there is none.
__device__ __forceinline__ bool operand_at(const Row& row, const Index (&j)[AXES], const Params& p,
                                           Index& at)
{
    bool there = row.n >= 0;
    at = row.n * p.x_n;
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        const Index i = element_at(p.axis[a], row.q[a], j[a]);
        there = there && inside(i, p.axis[a].in_size);
        at += i * p.axis[a].x_stride;
    }
    return there;
}

// Where is the tap of this column at a shift?  False if there is none.
__device__ __forceinline__ bool operand_at(const Column& column, const Index (&j)[AXES],
                                           const Params& p, Index& at)
{
    bool there = column.m >= 0;
    at = column.m * p.weight_m;
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        const Index k = tap_at(p.axis[a], column.r[a], j[a]);
        there = there && k >= 0;
        at += k * p.axis[a].weight_stride;
    }
    return there;
}
