// Which output is which: numbers in the order in which they lie in memory.
#pragma once

struct Output {
    Index n, channel, group, m;  // m counts within the group
    Index q[AXES], r[AXES];
    Index out_at;  // offset in the result
};

__device__ __forceinline__ Output output_at(Index number, const Params& p)
{
    Output output;
    Index o[AXES];
    if (OUT_CHANNELS_LAST) number = divide(number, p.channels, output.channel);
#pragma unroll
    for (int a = AXES - 1; a >= 0; --a) number = divide(number, p.axis[a].out_size, o[a]);
    if (!OUT_CHANNELS_LAST) number = divide(number, p.channels, output.channel);
    output.n = number;
    output.group = divide(output.channel, p.M, output.m);

    // Which inputs reach it?
    output.out_at = output.n * p.out_n + output.channel * p.out_m;
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        const Axis& axis = p.axis[a];
        output.q[a] = axis.q_begin + divide(o[a] + axis.r_begin, axis.stride, output.r[a]);
        output.out_at += o[a] * axis.out_stride;
    }
    return output;
}

// The number of an output: `output_at` read backwards.
__device__ __forceinline__ Index number_of(Index n, Index channel, const Index (&o)[AXES],
                                           const Params& p)
{
    Index number = n;
    if (!OUT_CHANNELS_LAST) number = number * p.channels.divisor + channel;
#pragma unroll
    for (int a = 0; a < AXES; ++a) number = number * p.axis[a].out_size.divisor + o[a];
    if (OUT_CHANNELS_LAST) number = number * p.channels.divisor + channel;
    return number;
}

// Where blocks share the sum of an output, a workspace takes the part of each: one array of all
// outputs for each split.
__device__ __forceinline__ Accumulator* parts_of(Index split, Accumulator* workspace,
                                                 const Params& p)
{
    return workspace + static_cast<unsigned long long>(split) * p.outputs;
}
