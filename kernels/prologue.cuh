// What a kernel is specialised by.  Python writes these lines anew for each specialisation; as they
// stand here they let every file compile alone.
#pragma once

struct Float16;
struct BFloat16;
template <typename T>
struct Complex;
enum class Activation { NONE, RELU, LEAKY_RELU, SIGMOID, TANH, GELU, SILU };

using Element = float;               // what the arrays hold
using Accumulator = float;           // what products are summed in
using Index = int;                   // long long where an array has 2^31 elements or more
using UnsignedIndex = unsigned int;
constexpr int AXES = 2;              // spatial axes: 1, 2 or 3
constexpr Activation ACTIVATION = Activation::NONE;
constexpr bool OUT_CHANNELS_LAST = false;  // channels are nearest in the result's memory
constexpr bool ADJOINT = false;            // compute the adjoint, a convolution with a stride
constexpr int THREADS = 128;               // of a block
constexpr int SHARED_BYTES = 26880;        // dynamic shared memory of a block

// The rest is for tiled kernels alone.
constexpr int ROWS = 128;                // of a block's tile
constexpr int COLUMNS = 64;
constexpr int DEPTH = 16;                // input channels of one step
constexpr int THREAD_ROWS = 8;           // of one thread's part of the tile
constexpr int THREAD_COLUMNS = 8;
constexpr bool X_CHANNELS_LAST = false;  // channels are nearest in x's memory
constexpr bool ASYNC = true;             // copy to shared memory asynchronously (sm_80 and later)
constexpr int CHANNEL_LANES = 1;         // neighbouring threads that sum different channels

// Elements that are moved at once; an array begins at a multiple of so many.
constexpr int X_VECTOR = 8;
constexpr int WEIGHT_VECTOR = 8;
constexpr int OUT_VECTOR = 2;
constexpr int STAGES = 8;  // of a ring in shared memory
