#include "raster/box.h"

#include <algorithm>
#include <cstddef>
#include <vector>

namespace wmf {

namespace {

// Fractional bits of Pillow's weights.
constexpr int kBits = 22;

// The pixels whose mean one pixel of the result is.
struct Window {
  int64_t first, size;
  uint32_t weight;  // 1 / size
};

std::vector<Window> windows(int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double width = std::max(scale, 1.0);
  std::vector<Window> found;
  for (int64_t i = 0; i < out; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto low = std::max(static_cast<int64_t>(centre - 0.5 * width + 0.5), int64_t{0});
    const auto high = std::min(static_cast<int64_t>(centre + 0.5 * width + 0.5), in);
    Window window{low, 0, 0};
    for (int64_t x = low; x < high; ++x) {
      const double place = (static_cast<double>(x) - centre + 0.5) * (1.0 / width);
      if (place > -0.5 && place <= 0.5) {
        if (window.size == 0) window.first = x;
        ++window.size;
      }
    }
    const double weight = 1.0 / static_cast<double>(window.size);
    window.weight = static_cast<uint32_t>(0.5 + weight * (1 << kBits));
    found.push_back(window);
  }
  return found;
}

uint8_t mean(uint32_t sum, uint32_t weight) {
  const uint32_t rounded = (sum * weight + (1U << (kBits - 1))) >> kBits;
  return static_cast<uint8_t>(std::min(rounded, 255U));
}

}  // namespace

void box_resize(const uint8_t* frame, int64_t rows, int64_t columns, uint8_t* out, int64_t out_rows,
                int64_t out_columns) {
  const auto wide = static_cast<size_t>(3 * columns), narrow = static_cast<size_t>(3 * out_columns);
  std::vector<uint8_t> narrowed(static_cast<size_t>(rows) * narrow);
  const std::vector<Window> across = windows(columns, out_columns);
  for (size_t y = 0; y < static_cast<size_t>(rows); ++y) {
    uint8_t* to = narrowed.data() + y * narrow;
    for (const Window& window : across) {
      const uint8_t* pixel = frame + y * wide + 3 * static_cast<size_t>(window.first);
      uint32_t red = 0, green = 0, blue = 0;
      for (int64_t i = 0; i < window.size; ++i, pixel += 3) {
        red += pixel[0];
        green += pixel[1];
        blue += pixel[2];
      }
      *to++ = mean(red, window.weight);
      *to++ = mean(green, window.weight);
      *to++ = mean(blue, window.weight);
    }
  }
  std::vector<uint32_t> sum(narrow);
  for (const Window& window : windows(rows, out_rows)) {
    std::fill(sum.begin(), sum.end(), 0U);
    const uint8_t* row = narrowed.data() + static_cast<size_t>(window.first) * narrow;
    for (int64_t i = 0; i < window.size; ++i, row += narrow) {
      for (size_t x = 0; x < narrow; ++x) sum[x] += row[x];
    }
    for (size_t x = 0; x < narrow; ++x) *out++ = mean(sum[x], window.weight);
  }
}

}  // namespace wmf
