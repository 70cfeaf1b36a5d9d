// The transposed convolution as a matrix product: what its rows and columns are, what a tile holds at
// each of them, and which outputs there are.
//
//     rows     (n, q)        every output with this q, in all phases, reads inputs around it
//     columns  (phase, m)    the outputs that share a q
#pragma once

// Of an offset in an array a row and a column have the part that is theirs.
struct alignas(2 * sizeof(Index)) Row {
    Index out_at;
    Index whole;  // is there an output in every phase?
    Index n;      // -1 beyond the last row
    Index x_at;
    Index q[AXES];
};

struct alignas(2 * sizeof(Index)) Column {
    Index out_at;
    Index channel;  // of the result; -1 where a phase is filled up, and beyond the last column
    Index weight_at;
    Index r[AXES];
};

__device__ __forceinline__ Row row_at(Index index, Index x_at, const Params& p)
{
    Row row = {0, index < p.rows, -1, x_at, {}};
    if (!row.whole) return row;
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) {
        const Axis& axis = p.axis[a];
        index = divide(index, axis.q_size, row.q[a]);
        const Index o = row.q[a] * axis.stride.divisor - axis.r_begin;  // in phase 0
        row.whole = row.whole && o >= 0 && o + axis.stride.divisor <= axis.out_size.divisor;
        row.out_at += o * axis.out_stride;
        row.q[a] += axis.q_begin;
    }
    row.n = index;
    row.x_at += row.n * p.x_n;
    row.out_at += row.n * p.out_n;
    return row;
}

// With LAST_PHASES_NEAREST the columns are (other phases, m, phase of the last axis).
template <bool LAST_PHASES_NEAREST = false>
__device__ __forceinline__ Column column_at(Index index, Index group, Index weight_at,
                                            const Params& p)
{
    Column column = {0, -1, weight_at, {}};
    Index m, phase[AXES];
    if (LAST_PHASES_NEAREST)
        index = divide(index, p.axis[AXES - 1].phases, phase[AXES - 1]);
    index = divide(index, p.phase_columns, m);
#pragma unroll
    for (int a = AXES - (LAST_PHASES_NEAREST ? 2 : 1); a >= 0; --a)
        index = divide(index, p.axis[a].phases, phase[a]);
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        const Axis& axis = p.axis[a];
        divide(phase[a] + axis.r_begin, axis.stride, column.r[a]);
        column.out_at += column.r[a] * axis.out_stride;
    }
    if (index > 0 || m >= p.M.divisor) return column;
    column.channel = group * p.M.divisor + m;
    column.weight_at += m * p.weight_m;
    column.out_at += column.channel * p.out_m;
    return column;
}

// Is there an input for this row at a shift?  `at` is its offset.
__device__ __forceinline__ bool operand_at(const Row& row, const Index (&j)[AXES], const Params& p,
                                           Index& at)
{
    bool there = row.n >= 0;
    at = row.x_at;
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        const Index i = element_at(p.axis[a], row.q[a], j[a]);
        there = there && inside(i, p.axis[a].in_size);
        at += i * p.axis[a].x_stride;
    }
    return there;
}

// Is there a tap for this column at a shift?  `at` is its offset.
__device__ __forceinline__ bool operand_at(const Column& column, const Index (&j)[AXES],
                                           const Params& p, Index& at)
{
    bool there = column.channel >= 0;
    at = column.weight_at;
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        const Index k = tap_at(p.axis[a], column.r[a], j[a]);
        there = there && k >= 0;
        at += k * p.axis[a].weight_stride;
    }
    return there;
}

// Where along an axis the output of this row and this column lies, or would lie.
__device__ __forceinline__ Index position(const Row& row, const Column& column, int a,
                                          const Params& p)
{
    const Axis& axis = p.axis[a];
    return (row.q[a] - axis.q_begin) * axis.stride.divisor - axis.r_begin + column.r[a];
}

// Is the output of this row and this column within the result?  In whole rows all are.
__device__ __forceinline__ bool is_output(const Row& row, const Column& column, const Params& p)
{
    bool there = row.n >= 0;
#pragma unroll
    for (int a = 0; a < AXES; ++a)
        there = there && inside(position(row, column, a, p), p.axis[a].out_size.divisor);
    return there;
}

// How many columns there are from this one on.  A phase either has no columns but its own, or is
// filled up to whole blocks.
__device__ __forceinline__ Index columns_from(Index first, const Params& p)
{
    if (p.phase_columns.divisor > p.M.divisor) {
        Index m;
        divide(first, p.phase_columns, m);
        return p.M.divisor - m;
    }
    Index phases = 1;
#pragma unroll
    for (int a = 0; a < AXES; ++a) phases *= p.axis[a].phases.divisor;
    return phases * p.M.divisor - first;
}
