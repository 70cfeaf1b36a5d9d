// Arithmetic on the elements: how each type is widened, summed, activated and rounded.
//
// Half types are summed in float and rounded once.  Integers wrap, so they are summed unsigned.
#pragma once

template <typename T>
struct alignas(2 * sizeof(T)) Complex {
    T re, im;
};

struct Float16 {
    unsigned short bits;
};

struct BFloat16 {
    unsigned short bits;
};

__device__ __forceinline__ float bits_to_float(unsigned int bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

__device__ __forceinline__ unsigned int float_to_bits(float value)
{
    unsigned int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// --- from what is stored to what is summed -----------------------------------------------------

__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(Float16 v) { return half_to_float(v.bits); }
__device__ __forceinline__ float widen(BFloat16 v) { return bits_to_float(v.bits << 16); }
__device__ __forceinline__ unsigned int widen(int v) { return v; }
__device__ __forceinline__ unsigned long long widen(long long v) { return v; }
template <typename T>
__device__ __forceinline__ Complex<T> widen(Complex<T> v) { return v; }

// --- and back, rounding to nearest, ties to even ------------------------------------------------

__device__ __forceinline__ void narrow(float v, float& to) { to = v; }
__device__ __forceinline__ void narrow(double v, double& to) { to = v; }
__device__ __forceinline__ void narrow(float v, Float16& to) { to.bits = float_to_half(v); }
__device__ __forceinline__ void narrow(unsigned int v, int& to) { to = static_cast<int>(v); }
__device__ __forceinline__ void narrow(unsigned long long v, long long& to)
{
    to = static_cast<long long>(v);
}
template <typename T>
__device__ __forceinline__ void narrow(Complex<T> v, Complex<T>& to) { to = v; }

__device__ __forceinline__ void narrow(float v, BFloat16& to)
{
#if __CUDA_ARCH__ >= 800
    to.bits = float_to_bfloat16(v);
#else
    unsigned int bits = float_to_bits(v);
    if (v == v)
        bits += 0x7fff + (bits >> 16 & 1);  // half a unit in the last place, less one if even
    else
        bits |= 1 << 22;  // a NaN stays one though its low bits are cut off
    to.bits = static_cast<unsigned short>(bits >> 16);
#endif
}

// --- sums ---------------------------------------------------------------------------------------

__device__ __forceinline__ void multiply_add(float& sum, float a, float b)
{
    sum = fmaf(a, b, sum);
}
__device__ __forceinline__ void multiply_add(double& sum, double a, double b)
{
    sum = fma(a, b, sum);
}
__device__ __forceinline__ void multiply_add(unsigned int& sum, unsigned int a, unsigned int b)
{
    sum += a * b;
}
__device__ __forceinline__ void multiply_add(unsigned long long& sum, unsigned long long a,
                                             unsigned long long b)
{
    sum += a * b;
}
template <typename T>
__device__ __forceinline__ void multiply_add(Complex<T>& sum, Complex<T> a, Complex<T> b)
{
    multiply_add(sum.re, a.re, b.re);
    multiply_add(sum.re, -a.im, b.im);
    multiply_add(sum.im, a.re, b.im);
    multiply_add(sum.im, a.im, b.re);
}

template <typename T>
__device__ __forceinline__ void add(T& sum, T v) { sum += v; }
template <typename T>
__device__ __forceinline__ void add(Complex<T>& sum, Complex<T> v)
{
    sum.re += v.re;
    sum.im += v.im;
}

// Integers always are.
__device__ __forceinline__ bool is_finite(float v) { return v - v == 0; }
__device__ __forceinline__ bool is_finite(double v) { return v - v == 0; }
__device__ __forceinline__ bool is_finite(unsigned int) { return true; }
__device__ __forceinline__ bool is_finite(unsigned long long) { return true; }
template <typename T>
__device__ __forceinline__ bool is_finite(Complex<T> v)
{
    return is_finite(v.re) && is_finite(v.im);
}

// Turns `seen`, which is 0 at first, into NaN as soon as a value is not finite.
__device__ __forceinline__ void watch(float& seen, float v) { seen = fmaf(v, 0.0f, seen); }
__device__ __forceinline__ void watch(double& seen, double v) { seen = fma(v, 0.0, seen); }
__device__ __forceinline__ void watch(unsigned int&, unsigned int) {}
__device__ __forceinline__ void watch(unsigned long long&, unsigned long long) {}
template <typename T>
__device__ __forceinline__ void watch(Complex<T>& seen, Complex<T> v)
{
    watch(seen.re, v.re);
    watch(seen.re, v.im);
}

// --- activations, of the sum before it is rounded -----------------------------------------------

__device__ __forceinline__ float exponential(float v) { return expf(v); }
__device__ __forceinline__ double exponential(double v) { return exp(v); }
__device__ __forceinline__ float hyperbolic_tangent(float v) { return tanhf(v); }
__device__ __forceinline__ double hyperbolic_tangent(double v) { return tanh(v); }
__device__ __forceinline__ float complementary_error(float v) { return erfcf(v); }
__device__ __forceinline__ double complementary_error(double v) { return erfc(v); }

template <typename T>
__device__ __forceinline__ T activated(T v)
{
    if constexpr (ACTIVATION == Activation::RELU) return v < 0 ? T(0) : v;
    if constexpr (ACTIVATION == Activation::LEAKY_RELU) return v < 0 ? v * T(0.01) : v;
    if constexpr (ACTIVATION == Activation::SIGMOID) return T(1) / (T(1) + exponential(-v));
    if constexpr (ACTIVATION == Activation::TANH) return hyperbolic_tangent(v);
    if constexpr (ACTIVATION == Activation::GELU)
        return T(0.5) * v * complementary_error(v * T(-0.70710678118654752440));
    if constexpr (ACTIVATION == Activation::SILU) return v / (T(1) + exponential(-v));
    return v;
}

// Integers have relu alone, complex numbers none.
__device__ __forceinline__ unsigned int activated(unsigned int v)
{
    return ACTIVATION == Activation::RELU && static_cast<int>(v) < 0 ? 0 : v;
}
__device__ __forceinline__ unsigned long long activated(unsigned long long v)
{
    return ACTIVATION == Activation::RELU && static_cast<long long>(v) < 0 ? 0 : v;
}
template <typename T>
__device__ __forceinline__ Complex<T> activated(Complex<T> v) { return v; }

// What is left to do with a finished sum: bias, activation, rounding.
__device__ __forceinline__ void finish(Accumulator sum, Element& out)
{
    narrow(activated(sum), out);
}
__device__ __forceinline__ void finish(Accumulator sum, Accumulator bias, Element& out)
{
    add(sum, bias);
    finish(sum, out);
}
