// What a kernel is specialised by.  Python writes these lines anew for each specialisation; as they
// stand here they let every file compile alone.
#pragma once

struct Float16;
struct BFloat16;
template <typename T>
struct Complex;
enum class Activation { NONE, RELU, LEAKY_RELU, SIGMOID, TANH, GELU, SILU };
enum class Mma { F16_K8, F16, BF16, TF32, TF32X3 };

using Element = float;               // what the arrays hold
using Accumulator = float;           // what products are summed in
using Index = int;                   // long long where an array has 2^31 elements or more
using UnsignedIndex = unsigned int;
constexpr int AXES = 2;              // spatial axes: 1, 2 or 3
constexpr Activation ACTIVATION = Activation::NONE;
constexpr bool OUT_CHANNELS_LAST = false;  // channels are nearest in the result's memory
constexpr bool ADJOINT = false;            // compute the adjoint, a convolution with a stride
constexpr int THREADS = 128;               // of a block
constexpr int SHARED_BYTES = 28672;        // dynamic shared memory of a block

// The rest is for some kernels alone.  First tiles and lanes:
constexpr int ROWS = 128;                // of a block's tile
constexpr int COLUMNS = 64;
constexpr int DEPTH = 16;                // input channels of one step
constexpr int THREAD_ROWS = 8;           // of one thread's part of the tile
constexpr int THREAD_COLUMNS = 8;
constexpr bool X_CHANNELS_LAST = true;   // channels of x are nearest in memory, side by side
constexpr bool ASYNC = true;             // copy to shared memory asynchronously (sm_80 and later)
constexpr bool FEW_CHANNELS = false;     // fewer than DEPTH
constexpr int BLOCKS = 4;                // of a multiprocessor: what the registers are shared out for
constexpr int CHANNEL_LANES = 1;         // neighbouring threads that sum different channels

// Elements that are moved at once; an array begins at a multiple of so many.
constexpr int X_VECTOR = 4;
constexpr int WEIGHT_VECTOR = 4;
constexpr int OUT_VECTOR = 2;
constexpr int STAGES = 8;    // of a ring in shared memory
constexpr int OUT_MAPS = 0;  // tensor maps of the result, one for each phase
constexpr int CLUSTER = 1;   // blocks that share what they fetch

// This is for kernels that know the window.  X is the last axis, Y the one before, Z the one before
// that; an axis that is not there has a window of 1.
constexpr int KERNEL_X = 4;
constexpr int STRIDE_X = 2;
constexpr int DILATION_X = 1;
constexpr int KERNEL_Y = 4;
constexpr int STRIDE_Y = 2;
constexpr int DILATION_Y = 1;
constexpr int KERNEL_Z = 1;
constexpr int STRIDE_Z = 1;
constexpr int DILATION_Z = 1;
constexpr int CHANNELS = 1;      // of a group: C
constexpr int OUT_CHANNELS = 1;  // of a group, or a part of them
constexpr int RUN_Q = 8;         // q of a thread along X
constexpr int PHASES_Y = 2;      // rows of a thread: all phases, or 1
constexpr int ROWS_AT_ONCE = 2;  // rows of inputs that are loaded together
constexpr int FIRST_PHASE = 1;   // r_begin along X
constexpr bool X_NEAREST = true;  // neighbours of a row of x lie side by side
constexpr int X_LEAD = 3;        // elements of a vector before a run's first input
constexpr int TILES = 4;         // of runs that a block computes
constexpr int PARTS_X = 1;       // of a window too long for registers; KERNEL_X counts one part's taps
constexpr int STEP_Q = 2;        // q of a thread in one round of its walk along X
constexpr bool WEIGHTS_HELD = true;  // in registers, from the first round to the last

// And this for the warps of tensor cores.
constexpr Mma MMA = Mma::TF32;  // which instruction multiplies
constexpr int WARP_ROWS = 64;   // of one warp's part of the tile
constexpr int WARP_COLUMNS = 32;
constexpr bool WHOLE_CHUNKS = false;   // 16 bytes of channels divide a group
constexpr bool WEIGHT_PACKED = false;  // output channels are nearest in the weight's memory
constexpr bool INTERLEAVED = false;    // the phases of the last axis are stored together
