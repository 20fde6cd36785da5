// A vector of W floats, and the few operations that the compilers' vector extensions lack.
//
// WMF_LANES is set by CMake, for this unit alone. Arithmetic, comparison, shifts and `mask ? a : b`
// are the compilers' own (GCC and Clang); what follows is only loads, stores, square roots, fused
// multiply-add, and the 32 x 32 -> 64 bit product.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define WMF_INLINE inline __attribute__((always_inline))
#define WMF_INLINE_LAMBDA __attribute__((always_inline))

// Loops over rows, panels and gates must vanish, so that the accumulators are registers.
#if defined(__clang__)
#define WMF_UNROLL _Pragma("clang loop unroll(full)")
#else
#define WMF_UNROLL _Pragma("GCC unroll 24")
#endif

namespace wmf {
namespace {

constexpr int64_t W = WMF_LANES;

typedef float F __attribute__((vector_size(4 * WMF_LANES)));
typedef int32_t I __attribute__((vector_size(4 * WMF_LANES)));
typedef uint32_t U __attribute__((vector_size(4 * WMF_LANES)));

// The same in memory: at any address, over an array of plain floats.
typedef float FloatsInMemory __attribute__((vector_size(4 * WMF_LANES), aligned(4), may_alias));
typedef uint32_t WordsInMemory __attribute__((vector_size(4 * WMF_LANES), aligned(4), may_alias));

// 4 bytes of anything, at the address of anything.
typedef uint32_t Word __attribute__((may_alias));

WMF_INLINE F load(const float* p) { return *reinterpret_cast<const FloatsInMemory*>(p); }
WMF_INLINE U load_words(const void* p) { return *static_cast<const WordsInMemory*>(p); }
WMF_INLINE void store(float* p, F x) { *reinterpret_cast<FloatsInMemory*>(p) = x; }

WMF_INLINE F splat(float x) { return x - F{}; }  // x - 0 is x, also for x = -0
WMF_INLINE U splat(uint32_t x) { return x + U{}; }

WMF_INLINE float first_lane(F x) { return x[0]; }
WMF_INLINE uint32_t first_lane(U x) { return x[0]; }

// For loops that wait: the processor's hint.
WMF_INLINE void relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// 0, 1, ..., W - 1
WMF_INLINE U lane_index() {
  U lanes = {};
  for (int i = 0; i < WMF_LANES; ++i) lanes[i] = static_cast<uint32_t>(i);
  return lanes;
}

WMF_INLINE F as_float(I x) { return reinterpret_cast<F>(x); }
WMF_INLINE F as_float(U x) { return reinterpret_cast<F>(x); }
WMF_INLINE I as_int(F x) { return reinterpret_cast<I>(x); }
WMF_INLINE I as_int(U x) { return reinterpret_cast<I>(x); }
WMF_INLINE U as_word(F x) { return reinterpret_cast<U>(x); }
WMF_INLINE U as_word(I x) { return reinterpret_cast<U>(x); }

WMF_INLINE F to_float(U x) {
  return __builtin_convertvector(reinterpret_cast<I>(x), F);
}  // x < 2^31
WMF_INLINE F to_float(I x) { return __builtin_convertvector(x, F); }

WMF_INLINE F min(F a, F b) { return a > b ? b : a; }  // a NaN in a stays one

// `sum` adds up the lanes as a tree of fixed shape.
#if defined(__AVX512F__)

WMF_INLINE float sum(F x) { return _mm512_reduce_add_ps(x); }
WMF_INLINE F sqrt(F x) { return _mm512_sqrt_ps(x); }
WMF_INLINE F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }

// A NaN stays one: the instructions return their second operand then.
WMF_INLINE F clamp(F x, float low, float high) {
  return _mm512_max_ps(splat(low), _mm512_min_ps(splat(high), x));
}

WMF_INLINE void mul_wide(U a, uint32_t m, U* high, U* low) {
  const __m512i x = reinterpret_cast<__m512i>(a);
  const __m512i factor = _mm512_set1_epi64(m);
  const __m512i even = _mm512_mul_epu32(x, factor);
  const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), factor);
  *low = reinterpret_cast<U>(_mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32)));
  *high = reinterpret_cast<U>(_mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd));
}

#elif defined(__AVX2__) && defined(__FMA__)

WMF_INLINE float sum(F x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
WMF_INLINE F sqrt(F x) { return _mm256_sqrt_ps(x); }
WMF_INLINE F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }

// A NaN stays one: the instructions return their second operand then.
WMF_INLINE F clamp(F x, float low, float high) {
  return _mm256_max_ps(splat(low), _mm256_min_ps(splat(high), x));
}

WMF_INLINE void mul_wide(U a, uint32_t m, U* high, U* low) {
  const __m256i x = reinterpret_cast<__m256i>(a);
  const __m256i factor = _mm256_set1_epi64x(m);
  const __m256i even = _mm256_mul_epu32(x, factor);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), factor);
  *low = reinterpret_cast<U>(_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA));
  *high = reinterpret_cast<U>(_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA));
}

#else  // generic: SSE2 on x86-64, NEON on aarch64, or whatever the compiler makes of four lanes

WMF_INLINE float sum(F x) { return (x[0] + x[2]) + (x[1] + x[3]); }

#if defined(__x86_64__)
WMF_INLINE F sqrt(F x) { return _mm_sqrt_ps(x); }
#elif defined(__aarch64__)
WMF_INLINE F sqrt(F x) { return reinterpret_cast<F>(vsqrtq_f32(reinterpret_cast<float32x4_t>(x))); }
#else
WMF_INLINE F sqrt(F x) {
  for (int i = 0; i < WMF_LANES; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
}
#endif

#if defined(__aarch64__)
WMF_INLINE F fma(F a, F b, F c) {
  return reinterpret_cast<F>(vfmaq_f32(reinterpret_cast<float32x4_t>(c),
                                       reinterpret_cast<float32x4_t>(a),
                                       reinterpret_cast<float32x4_t>(b)));
}
#else
WMF_INLINE F fma(F a, F b, F c) { return a * b + c; }  // two roundings; no such instruction here
#endif

// A NaN stays one.
WMF_INLINE F clamp(F x, float low, float high) {
  x = x > high ? splat(high) : x;
  return x < low ? splat(low) : x;
}

WMF_INLINE void mul_wide(U a, uint32_t m, U* high, U* low) {
  for (int i = 0; i < WMF_LANES; ++i) {
    const uint64_t product = static_cast<uint64_t>(a[i]) * m;
    (*high)[i] = static_cast<uint32_t>(product >> 32);
    (*low)[i] = static_cast<uint32_t>(product);
  }
}

#endif

WMF_INLINE F fma(F a, float b, float c) { return fma(a, splat(b), splat(c)); }
WMF_INLINE F fma(F a, float b, F c) { return fma(a, splat(b), c); }

// x * 2^n, where n is in the low bits of m (1.5 * 2^23 + n): a shift by 23 makes it an exponent.
WMF_INLINE F add_to_exponent(F x, F m) { return as_float(as_int(x) + as_int(as_word(m) << 23)); }

WMF_INLINE F quotient(F a, F b) { return a / b; }

// Two vectors, every operation done to one right after the other.
struct Pair {
  F a, b;
};
WMF_INLINE Pair operator-(Pair x) { return {-x.a, -x.b}; }
WMF_INLINE Pair operator+(Pair x, Pair y) { return {x.a + y.a, x.b + y.b}; }
WMF_INLINE Pair operator*(Pair x, Pair y) { return {x.a * y.a, x.b * y.b}; }
WMF_INLINE Pair operator/(Pair x, Pair y) { return {x.a / y.a, x.b / y.b}; }
WMF_INLINE Pair operator+(float x, Pair y) { return {x + y.a, x + y.b}; }
WMF_INLINE Pair operator-(float x, Pair y) { return {x - y.a, x - y.b}; }
WMF_INLINE Pair operator-(Pair x, float y) { return {x.a - y, x.b - y}; }
WMF_INLINE Pair fma(Pair x, Pair y, Pair z) { return {fma(x.a, y.a, z.a), fma(x.b, y.b, z.b)}; }
WMF_INLINE Pair fma(Pair x, float y, float z) { return {fma(x.a, y, z), fma(x.b, y, z)}; }
WMF_INLINE Pair fma(Pair x, float y, Pair z) { return {fma(x.a, y, z.a), fma(x.b, y, z.b)}; }
WMF_INLINE Pair clamp(Pair x, float low, float high) {
  return {clamp(x.a, low, high), clamp(x.b, low, high)};
}
WMF_INLINE Pair quotient(Pair a, Pair b) { return {a.a / b.a, a.b / b.b}; }
WMF_INLINE Pair add_to_exponent(Pair x, Pair m) {
  return {add_to_exponent(x.a, m.a), add_to_exponent(x.b, m.b)};
}

}  // namespace
}  // namespace wmf
