// V's encoder for a block of frames: four convolutions with ReLU, then mu and logvar.
//
// Images have their channels last, so the window of an output pixel is `kernel` stretches of
// neighbouring numbers, one in each row of the image, and a convolution is a product of rows by
// packed weights (as in gemm.h) whose rows are read where they lie. A tile is R output pixels, of
// any rows and images, x V vectors of outputs. An output is one chain in the order of the window,
// so a frame's latent does not depend on the other frames.
#pragma once

#include "cpu/gemm.h"

namespace wmf {
namespace {

// With more, what lies between the layers would drive the weights out of L2.
constexpr int64_t kMaxBlockFrames = 8;

// One layer, its sizes in words of its format, and where its weights are:
// [panel][word][V][W], biases [panel][V][W].
struct Convolution {
  int64_t channels, size;    // of its input: channels, and rows or columns of pixels
  int64_t kernel, outputs;   // a window is kernel x kernel pixels; windows are two pixels apart
  int64_t out;               // rows or columns of the output
  int64_t vectors;           // V
  int64_t padded;            // outputs, rounded up to whole panels
  int64_t stretch, words;    // of a window's row, of a window
  int64_t row, step, image;  // distances of rows, of windows, and of images
  int64_t biases, weights;   // offsets into the packed weights
};

// `words(n)`: words of n numbers. `offset` is where this layer's weights begin, and then, where the
// next one's do.
template <class Format>
WMF_INLINE Convolution convolution(int64_t channels, int64_t size, int64_t kernel, int64_t outputs,
                                   int64_t* offset) {
  const auto words = [](int64_t n) WMF_INLINE_LAMBDA { return Format::hidden_words(n); };
  Convolution c{};
  c.channels = channels;
  c.size = size;
  c.kernel = kernel;
  c.outputs = outputs;
  c.out = (size - kernel) / 2 + 1;
  c.vectors = outputs <= 2 * W ? 2 : 4;
  c.padded = round_up(outputs, c.vectors * W);
  c.stretch = words(kernel * channels);
  c.words = kernel * c.stretch;
  c.row = words(size * channels);
  c.step = words(2 * channels);
  c.image = aligned(size * c.row);
  c.biases = *offset;
  c.weights = c.biases + aligned(c.padded);
  *offset = c.weights + aligned(c.padded * c.words);
  return c;
}

struct EncoderLayout {
  Convolution layer[kEncoderLayers];
  int64_t size;  // of the packed weights, in words
};

// The last layer is always in Fp32: it is small, and its rounding would go straight into mu.
template <class Format>
WMF_INLINE EncoderLayout encoder_layout(int64_t latent) {
  EncoderLayout l{};
  int64_t channels = kFrameChannels, size = kFrameSize;
  for (int64_t i = 0; i + 1 < kEncoderLayers; ++i) {
    l.layer[i] = convolution<Format>(channels, size, 4, int64_t{32} << i, &l.size);
    channels = l.layer[i].outputs;
    size = l.layer[i].out;
  }
  l.layer[kEncoderLayers - 1] = convolution<Fp32>(channels, size, size, 2 * latent, &l.size);
  return l;
}

template <class Format>
void pack_convolution(const Convolution& c, const float* weight, const float* bias, float scale,
                      float* packed) {
  const int64_t panel_width = c.vectors * W;
  for (int64_t output = 0; output < c.outputs; ++output) {
    // Word by word of a window: rows, columns, channels.
    const auto at = [&](int64_t k) {
      const int64_t channel = k % c.channels, pixel = k / c.channels;
      return weight[(output * c.channels + channel) * c.kernel * c.kernel + pixel] * scale;
    };
    const int64_t panel = output / panel_width, lane = output % panel_width;
    Format::pack(at, c.kernel * c.kernel * c.channels, 0, bias[output],
                 packed + c.weights + panel * c.words * panel_width + lane,
                 packed + c.biases + panel * panel_width + lane, panel_width);
  }
}

template <class Format>
void pack_encoder(const EncoderWeights& w, float* packed) {
  const EncoderLayout l = encoder_layout<Format>(w.latent);
  const int64_t last = kEncoderLayers - 1;
  for (int64_t i = 0; i < last; ++i) {
    // So that bytes are the first layer's input.
    const float scale = i == 0 ? 1.0f / 255.0f : 1.0f;
    pack_convolution<Format>(l.layer[i], w.weight[i], w.bias[i], scale, packed);
  }
  pack_convolution<Fp32>(l.layer[last], w.weight[last], w.bias[last], 1.0f, packed);
}

// --- encode_frames -----------------------------------------------------------------------------

// Windows of an image, row by row, then those of the next image.
struct Window {
  const Convolution& c;
  const Word* image;
  int64_t y, x;

  WMF_INLINE const Word* next() {
    const Word* at = image + 2 * y * c.row + x * c.step;
    if (++x == c.out) {
      x = 0;
      if (++y == c.out) y = 0, image += c.image;
    }
    return at;
  }
};

// R windows by one panel of V vectors; see multiply_tile.
template <class Format, int R, int V, class Epilogue>
void convolve_tile(const Convolution& c, const float* packed, Window* window, int64_t row,
                   int64_t panel, const Epilogue& epilogue) {
  typedef typename Format::Sum Sum;
  const float* biases = packed + c.biases + panel * V * W;
  const float* w = packed + c.weights + panel * c.words * V * W;
  const Word* x[R];
  Sum sum[R][V];
  WMF_UNROLL
  for (int r = 0; r < R; ++r) {
    x[r] = window->next();
    WMF_UNROLL
    for (int v = 0; v < V; ++v) sum[r][v] = Format::start(biases + v * W);
  }

  for (int64_t i = 0; i < c.kernel; ++i) {
    const int64_t begin = i * c.row;
    for (int64_t k = begin; k < begin + c.stretch; ++k, w += V * W) {
      U wv[V];
      WMF_UNROLL
      for (int v = 0; v < V; ++v) wv[v] = load_words(w + v * W);
      WMF_UNROLL
      for (int r = 0; r < R; ++r) {
        const U xr = splat(x[r][k]);
        WMF_UNROLL
        for (int v = 0; v < V; ++v) sum[r][v] = Format::multiply_hidden(sum[r][v], xr, wv[v]);
      }
    }
  }

  WMF_UNROLL
  for (int r = 0; r < R; ++r) {
    WMF_UNROLL
    for (int v = 0; v < V; ++v) {
      epilogue(row + r, (panel * V + v) * W, Format::finish(sum[r][v], biases + v * W));
    }
  }
}

// convolve_tile for a number of windows known at run time, 1 <= rows <= R.
template <class Format, int R, int V, class Epilogue>
WMF_INLINE void convolve_rows(int64_t rows, const Convolution& c, const float* packed,
                              Window* window, int64_t row, int64_t panel,
                              const Epilogue& epilogue) {
  if constexpr (R > 1) {
    if (rows < R) {
      convolve_rows<Format, R - 1, V>(rows, c, packed, window, row, panel, epilogue);
      return;
    }
  }
  convolve_tile<Format, R, V>(c, packed, window, row, panel, epilogue);
}

template <class Format, int R, int V, class Epilogue>
void convolve_panels(const Convolution& c, const float* packed, const Word* images, int64_t n,
                     const Epilogue& epilogue) {
  const int64_t rows = n * c.out * c.out, tiles = (rows + R - 1) / R;
  for (int64_t panel = 0; panel < c.padded / (V * W); ++panel) {
    Window window{c, images, 0, 0};
    for (int64_t tile = 0; tile < tiles; ++tile) {
      const int64_t begin = rows * tile / tiles, end = rows * (tile + 1) / tiles;
      convolve_rows<Format, R, V>(end - begin, c, packed, &window, begin, panel, epilogue);
    }
  }
}

// For every W outputs of every window of n images: epilogue(window, output, F y), y = bias + x w.
template <class Format, class Epilogue>
void convolve(const Convolution& c, const float* packed, const Word* images, int64_t n,
              const Epilogue& epilogue) {
  // More windows by two vectors would need more registers for their places than there are.
  constexpr int kWindowsOfTwo = kTileRows == 6 ? 8 : 2 * kTileRows;
  if (c.vectors == 4) {
    convolve_panels<Format, kTileRows, 4>(c, packed, images, n, epilogue);
  } else {
    convolve_panels<Format, kWindowsOfTwo, 2>(c, packed, images, n, epilogue);
  }
}

// One layer, with ReLU, from n images in the words of From to n images in the words of To.
template <class From, class To>
void convolve_relu(const Convolution& c, const float* packed, const Word* images, int64_t n,
                   Word* out, int64_t out_image) {
  const int64_t pixels = c.out * c.out, pixel_words = To::hidden_words(c.outputs);
  const auto write = [&](int64_t window, int64_t output, F y) WMF_INLINE_LAMBDA {
    const F zero = splat(0.0f);
    const int64_t image = n == 1 ? 0 : window / pixels;
    Word* to = out + image * (out_image - pixels * pixel_words) + window * pixel_words;
    To::write(to + To::hidden_words(output), y < zero ? zero : y);
  };
  convolve<From>(c, packed, images, n, write);
}

// The bytes of a frame as words.
template <class Format>
WMF_INLINE void write_frame(const uint8_t* frame, Word* to) {
  typedef uint8_t Bytes __attribute__((vector_size(WMF_LANES)));
  for (int64_t i = 0; i < kFrameSize * kFrameSize * kFrameChannels; i += W) {
    Bytes bytes;
    __builtin_memcpy(&bytes, frame + i, sizeof bytes);
    Format::write(to + Format::hidden_words(i), to_float(__builtin_convertvector(bytes, U)));
  }
}

template <class Format>
int64_t encoder_scratch_size(int64_t latent, int64_t rows) {
  const EncoderLayout l = encoder_layout<Format>(latent);
  const int64_t block = rows < kMaxBlockFrames ? rows : kMaxBlockFrames;
  return l.layer[0].image + l.layer[1].image + l.layer[2].image +
         block * (l.layer[3].image + l.layer[4].image + aligned(l.layer[4].padded));
}

template <class Format>
void encode_rows(const PackedEncoder& m, const EncoderArrays& a, int64_t row_begin, int64_t row_end,
                 float* scratch) {
  const EncoderLayout l = encoder_layout<Format>(m.latent);
  const Convolution* layer = l.layer;
  const int64_t block =
      row_end - row_begin < kMaxBlockFrames ? row_end - row_begin : kMaxBlockFrames;
  Arena arena{scratch};
  const auto words = [&](int64_t n) { return reinterpret_cast<Word*>(arena.take(n)); };
  Word* x[kEncoderLayers];  // each layer's input; the first three layers see one frame at a time
  for (int i = 0; i < 3; ++i) x[i] = words(layer[i].image);
  for (int i = 3; i < 5; ++i) x[i] = words(block * layer[i].image);
  const int64_t stride = aligned(layer[4].padded);
  float* heads = arena.take(block * stride);

  for (int64_t first = row_begin; first < row_end; first += block) {
    const int64_t n = row_end - first < block ? row_end - first : block;
    for (int64_t i = 0; i < n; ++i) {
      write_frame<Format>(a.frames + (first + i) * kFrameSize * kFrameSize * kFrameChannels, x[0]);
      convolve_relu<Format, Format>(layer[0], m.data, x[0], 1, x[1], layer[1].image);
      convolve_relu<Format, Format>(layer[1], m.data, x[1], 1, x[2], layer[2].image);
      convolve_relu<Format, Format>(layer[2], m.data, x[2], 1, x[3] + i * layer[3].image,
                                    layer[3].image);
    }
    convolve_relu<Format, Fp32>(layer[3], m.data, x[3], n, x[4], layer[4].image);
    const auto write = [&](int64_t row, int64_t output, F y)
                           WMF_INLINE_LAMBDA { store(heads + row * stride + output, y); };
    convolve<Fp32>(layer[4], m.data, x[4], n, write);
    for (int64_t i = 0; i < n; ++i) {
      copy(a.mu + (first + i) * m.latent, heads + i * stride, m.latent);
      copy(a.logvar + (first + i) * m.latent, heads + i * stride + m.latent, m.latent);
    }
  }
}

}  // namespace
}  // namespace wmf
