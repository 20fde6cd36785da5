// The number formats of a matrix product's operands. Each packs neighbouring inputs into 4-byte
// words, so that the product (gemm.h) is one loop for all of them: a word of the row, broadcast,
// times a vector of words of the weights, added to a vector of sums.
//
//          a word holds                               sums     instruction
//   Fp32   1 float                                    float    fused multiply-add
//   Bf16   2 bfloat16                                 float    vdpbf16ps
//   Int8   h: 4 of 8 bits; other inputs: 2 of 16      int32    vpdpbusd, vpdpwssd
//
// Where the level lacks the instruction the same is computed from others: for Int8 to the bit, and
// for Bf16 too where there is a fused multiply-add (but for denormals, which vdpbf16ps takes for
// 0). Fp32's words are the row of floats itself; the others keep a copy of the row in words.
#pragma once

#include "core/model.h"
#include "cpu/simd.h"

namespace wmf {
namespace {

WMF_INLINE uint32_t bits(float x) {
  uint32_t word;
  __builtin_memcpy(&word, &x, sizeof word);
  return word;
}

WMF_INLINE void store_word(void* to, uint32_t word) { __builtin_memcpy(to, &word, sizeof word); }

// Rounds half up, which is as good as any other way here.
WMF_INLINE int32_t nearest(float x) { return static_cast<int32_t>(__builtin_floorf(x + 0.5f)); }

struct Fp32 {
  typedef F Sum;
  static constexpr bool kHasNan = true;
  static constexpr bool kRowIsOperand = true;
  static constexpr bool kSameWords = true;   // whether h and the other inputs are multiplied alike
  static constexpr int64_t kConstants = 1;   // bias
  static constexpr int64_t kOperations = 2;  // per lane of a multiply
  static constexpr int kPanelsOfOneRow = 2;  // see panels_per_tile

  static constexpr int64_t hidden_words(int64_t n) { return n; }
  static constexpr int64_t input_words(int64_t n) { return n; }

  static WMF_INLINE Sum start(const float* constants) { return load(constants); }
  static WMF_INLINE F finish(Sum sum, const float*) { return sum; }
  static WMF_INLINE Sum multiply_hidden(Sum sum, U x, U w) {
    return fma(as_float(x), as_float(w), sum);
  }
  static WMF_INLINE Sum multiply_input(Sum sum, U x, U w) { return multiply_hidden(sum, x, w); }

  static WMF_INLINE void write(Word* to, F x) { store(reinterpret_cast<float*>(to), x); }
  static WMF_INLINE void write_hidden(Word*, int64_t, F) {}
  static WMF_INLINE void write_inputs(Word*, const float*, int64_t) {}

  // One output of the product: its weights, weight(k) for 0 <= k < hidden + inputs, to
  // column[word * width], and its constants to constants[i * width], where width is 4 W but for V.
  template <class Weight>
  static void pack(const Weight& weight, int64_t hidden, int64_t inputs, float bias, float* column,
                   float* constants, int64_t width = 4 * W) {
    for (int64_t k = 0; k < hidden + inputs; ++k) column[k * width] = weight(k);
    constants[0] = bias;
  }
};

struct Bf16 {
  typedef F Sum;
  static constexpr bool kHasNan = true;
  static constexpr bool kRowIsOperand = false;
  static constexpr bool kSameWords = true;
  static constexpr int64_t kConstants = 1;
  static constexpr int64_t kOperations = 4;
  static constexpr int kPanelsOfOneRow = 4;

  static constexpr int64_t hidden_words(int64_t n) { return n / 2; }  // n is a multiple of W
  static constexpr int64_t input_words(int64_t n) { return (n + 1) / 2; }

  static WMF_INLINE Sum start(const float* constants) { return load(constants); }
  static WMF_INLINE F finish(Sum sum, const float*) { return sum; }

  static WMF_INLINE Sum multiply_hidden(Sum sum, U x, U w) {
#if defined(__AVX512BF16__)
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(w));
#else
    sum = fma(as_float(x & 0xffff0000u), as_float(w & 0xffff0000u), sum);
    return fma(as_float(x << 16), as_float(w << 16), sum);
#endif
  }
  static WMF_INLINE Sum multiply_input(Sum sum, U x, U w) { return multiply_hidden(sum, x, w); }

  // To nearest, ties to even; the upper half of a word is left to be cut off.
  static WMF_INLINE U round(F x) {
    const U word = as_word(x);
    const U rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
    return x == x ? rounded : splat(0x7fc0u);
  }
  static WMF_INLINE void write(Word* to, F x) {
    typedef uint16_t Halves __attribute__((vector_size(2 * WMF_LANES)));
    const Halves halves = __builtin_convertvector(round(x), Halves);
    __builtin_memcpy(to, &halves, sizeof halves);
  }
  // h of the units unit ... unit + W - 1, into a row of words.
  static WMF_INLINE void write_hidden(Word* row, int64_t unit, F h) { write(row + unit / 2, h); }
  // n other inputs. Reads and writes up to the next multiple of W.
  static WMF_INLINE void write_inputs(Word* to, const float* from, int64_t n) {
    for (int64_t i = 0; i < n; i += W) write(to + i / 2, load(from + i));
  }

  template <class Weight>
  static void pack(const Weight& weight, int64_t hidden, int64_t inputs, float bias, float* column,
                   float* constants, int64_t width = 4 * W) {
    const int64_t n = hidden + inputs;
    for (int64_t k = 0; k < n; k += 2) {
      const uint32_t low = round(splat(weight(k)))[0];
      const uint32_t high = k + 1 < n ? round(splat(weight(k + 1)))[0] : 0;
      store_word(column + k / 2 * width, low | high << 16);
    }
    constants[0] = bias;
  }
};

// Every output has its own scale: weights of h are scale * (-127 ... 127), h is (1 ... 255 minus
// 128) / 127. The other inputs (z, action, restart) are multiples of 1 / 64 up to +-64, and their
// weights have 16 bits, because they reach further than h and are few. The numbers of both are
// limited: model.h.
struct Int8 {
  typedef I Sum;
  static constexpr bool kHasNan = false;
  static constexpr bool kRowIsOperand = false;
  static constexpr bool kSameWords = false;
  static constexpr int64_t kConstants = 3;  // first sum (int32), scale of the sum, bias
  static constexpr int64_t kOperations = 8;
  static constexpr int kPanelsOfOneRow = 4;
  static constexpr float kHiddenScale = 127.0f, kInputScale = 64.0f, kLargestInput = 64.0f;

  static constexpr int64_t hidden_words(int64_t n) { return n / 4; }
  static constexpr int64_t input_words(int64_t n) { return (n + 1) / 2; }

  static WMF_INLINE Sum start(const float* constants) { return as_int(load_words(constants)); }
  static WMF_INLINE F finish(Sum sum, const float* constants) {
    return fma(to_float(sum), load(constants + 4 * W), load(constants + 2 * 4 * W));
  }

  static WMF_INLINE Sum multiply_hidden(Sum sum, U x, U w) {
#if defined(__AVX512VNNI__)
    return reinterpret_cast<I>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sum),
                                                   reinterpret_cast<__m512i>(x),
                                                   reinterpret_cast<__m512i>(w)));
#else
    sum += as_int(x & 0xffu) * (as_int(w << 24) >> 24);
    sum += as_int((x >> 8) & 0xffu) * (as_int(w << 16) >> 24);
    sum += as_int((x >> 16) & 0xffu) * (as_int(w << 8) >> 24);
    return sum + as_int(x >> 24) * (as_int(w) >> 24);
#endif
  }
  static WMF_INLINE Sum multiply_input(Sum sum, U x, U w) {
#if defined(__AVX512VNNI__)
    return reinterpret_cast<I>(_mm512_dpwssd_epi32(reinterpret_cast<__m512i>(sum),
                                                   reinterpret_cast<__m512i>(x),
                                                   reinterpret_cast<__m512i>(w)));
#else
    sum += (as_int(x << 16) >> 16) * (as_int(w << 16) >> 16);
    return sum + (as_int(x) >> 16) * (as_int(w) >> 16);
#endif
  }

  // Rounds by adding 1.5 * 2^23, which leaves the integer in the low bits.
  static WMF_INLINE U round(F x) { return as_word(x + 12582912.0f) - bits(12582912.0f); }

  static WMF_INLINE void write_hidden(Word* row, int64_t unit, F h) {
    typedef uint8_t Bytes __attribute__((vector_size(WMF_LANES)));
    const Bytes bytes = __builtin_convertvector(round(h * kHiddenScale) + 128u, Bytes);
    __builtin_memcpy(row + unit / 4, &bytes, sizeof bytes);
  }
  static WMF_INLINE void write_inputs(Word* to, const float* from, int64_t n) {
    typedef uint16_t Halves __attribute__((vector_size(2 * WMF_LANES)));
    for (int64_t i = 0; i < n; i += W) {
      F x = load(from + i);
      x = x > kLargestInput ? splat(kLargestInput) : x;
      x = x < -kLargestInput ? splat(-kLargestInput) : x;
      const Halves halves = __builtin_convertvector(round(x * kInputScale), Halves);
      __builtin_memcpy(to + i / 2, &halves, sizeof halves);
    }
  }

  template <class Weight>
  static void pack(const Weight& weight, int64_t hidden, int64_t inputs, float bias, float* column,
                   float* constants) {
    // y = scale * sum; a hidden weight of 127 and an input weight of 32,767 must reach the largest.
    float scale = 1e-30f;
    double reach = 0.0;  // of the inputs' part of y
    for (int64_t k = 0; k < hidden + inputs; ++k) {
      const float magnitude = __builtin_fabsf(weight(k));
      const float full = k < hidden ? 127.0f * kHiddenScale : 32767.0f * kInputScale;
      scale = magnitude / full > scale ? magnitude / full : scale;
      if (k >= hidden) reach += static_cast<double>(magnitude) * kLargestInput;
    }
    // Nor may the sum overflow, whatever the inputs: what is left of int32 when h, and the rounding
    // of the other weights by up to 1/2, have taken their largest share.
    const double room = 2147483647.0 - 255.0 * 127.0 * static_cast<double>(kMaxInt8Hidden) -
                        0.5 * kInputScale * kLargestInput * static_cast<double>(kMaxInt8Inputs);
    const float needed = static_cast<float>(reach / room);
    scale = needed > scale ? needed : scale;
    int32_t sum = 0;
    for (int64_t k = 0; k < hidden; k += 4) {
      uint32_t word = 0;
      for (int64_t i = 0; i < 4; ++i) {
        const int32_t q = nearest(weight(k + i) / (scale * kHiddenScale));
        sum += q;
        word |= (static_cast<uint32_t>(q) & 0xffu) << (8 * i);
      }
      store_word(column + k / 4 * 4 * W, word);
    }
    for (int64_t k = 0; k < inputs; k += 2) {
      uint32_t word = 0;
      for (int64_t i = 0; i < 2 && k + i < inputs; ++i) {
        const int32_t q = nearest(weight(hidden + k + i) / (scale * kInputScale));
        word |= (static_cast<uint32_t>(q) & 0xffffu) << (16 * i);
      }
      store_word(column + (hidden / 4 + k / 2) * 4 * W, word);
    }
    store_word(constants, static_cast<uint32_t>(-128 * sum));
    constants[4 * W] = scale;
    constants[2 * 4 * W] = bias;
  }
};

// f(Fp32{}) or f(Bf16{}): V's formats.
template <class Function>
WMF_INLINE auto with_float_format(Precision precision, const Function& f) {
  return precision == Precision::kBf16 ? f(Bf16{}) : f(Fp32{});
}

// f(Fp32{}), f(Bf16{}) or f(Int8{}).
template <class Function>
WMF_INLINE auto with_format(Precision precision, const Function& f) {
  switch (precision) {
    case Precision::kBf16:
      return f(Bf16{});
    case Precision::kInt8:
      return f(Int8{});
    case Precision::kFp32:
    case Precision::kFp16:  // no level has it: refused at the border
      break;
  }
  return f(Fp32{});
}

}  // namespace
}  // namespace wmf
