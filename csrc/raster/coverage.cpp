#include "raster/coverage.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace wmf {

namespace {

// Coverage within this of 0 or 1 is none or all: the sums' rounding, which no eye sees.
constexpr float kTiny = 1.0F / 1024;
// Where colours mix, smoothscale's passes lose less than 2 on average.
constexpr float kMixed = 0.75F;

struct Pixel {
  uint8_t r, g, b;
};

uint8_t byte(float value) {
  return static_cast<uint8_t>(static_cast<int>(std::min(std::max(value, 0.0F), 255.0F) + 0.5F));
}

Pixel opaque(const Paint& sum) {
  const float scale = 1.0F / sum.cover;
  return {byte(sum.r * scale), byte(sum.g * scale), byte(sum.b * scale)};
}

void mix(uint8_t* p, const Paint& sum) {
  const float rest = 1.0F - sum.cover;
  p[0] = byte(static_cast<float>(p[0]) * rest + sum.r + kMixed);
  p[1] = byte(static_cast<float>(p[1]) * rest + sum.g + kMixed);
  p[2] = byte(static_cast<float>(p[2]) * rest + sum.b + kMixed);
}

void draw_pixel(uint8_t* p, const Paint& sum) {
  if (sum.cover > 1.0F - kTiny) {
    const Pixel colour = opaque(sum);
    p[0] = colour.r;
    p[1] = colour.g;
    p[2] = colour.b;
  } else if (sum.cover > kTiny) {
    mix(p, sum);
  }
}

void draw_span(uint8_t* p, int n, const Paint& sum) {
  if (sum.cover > 1.0F - kTiny) {
    // Four pixels at a time.
    const Pixel c = opaque(sum);
    const std::array<uint8_t, 12> four = {c.r, c.g, c.b, c.r, c.g, c.b,
                                          c.r, c.g, c.b, c.r, c.g, c.b};
    int i = 0;
    for (; i + 4 <= n; i += 4) std::memcpy(p + 3 * i, four.data(), four.size());
    for (; i < n; ++i) std::memcpy(p + 3 * i, four.data(), 3);
  } else if (sum.cover > kTiny) {
    for (int i = 0; i < n; ++i) mix(p + 3 * i, sum);
  }
}

int lowest_bit(uint64_t bits) { return __builtin_ctzll(bits); }

void add(Paint& cell, const Paint& paint, float amount) {
  cell.cover += paint.cover * amount;
  cell.r += paint.r * amount;
  cell.g += paint.g * amount;
  cell.b += paint.b * amount;
}

}  // namespace

Coverage::Coverage(int rows) : rows_(rows), first_row_(rows), last_row_(-1) {}

void Coverage::add_part(int row, float from, float to, float height, const Paint& paint) {
  const auto y = static_cast<size_t>(row);
  Row& cells = cells_[y];
  const float left = std::min(from, to), right = std::max(from, to);
  const auto first = static_cast<size_t>(left), last = static_cast<size_t>(right);
  if (first == last) {
    const float mean = 0.5F * (left + right) - static_cast<float>(first);
    add(cells[first], paint, height * (1.0F - mean));
    add(cells[first + 1], paint, height * mean);
  } else {
    // Right of the edge lies, in all columns before t together, the mean of max(t - x, 0).
    const float scale = 0.5F / (right - left);
    float before = 0.0F, covered = 0.0F;
    for (size_t x = first; x <= last; ++x) {
      const float t = static_cast<float>(x + 1);
      const float sum = t >= right ? t - 0.5F * (left + right) : (t - left) * (t - left) * scale;
      add(cells[x], paint, height * (sum - before - covered));
      covered = sum - before;
      before = sum;
    }
    add(cells[last + 1], paint, height * (1.0F - covered));
  }
  for (size_t x = first; x <= last + 1; ++x) touched_[y][x / 64] |= uint64_t{1} << (x % 64);
}

void Coverage::add_slanted(Point a, Point b, const Paint& paint) {
  // Here a is above b, and both are inside of the frame.
  const float slope = (b.x - a.x) / (b.y - a.y);
  const float low = std::min(a.x, b.x), high = std::max(a.x, b.x);
  const int first = static_cast<int>(a.y), last = std::min(static_cast<int>(b.y), rows_ - 1);
  float x = a.x, y = a.y;
  for (int row = first; row <= last; ++row) {
    const float end = std::min(static_cast<float>(row + 1), b.y);
    const float next = std::min(std::max(a.x + (end - a.y) * slope, low), high);
    if (end > y) add_part(row, x, next, end - y, paint);
    x = next;
    y = end;
  }
  first_row_ = std::min(first_row_, first);
  last_row_ = std::max(last_row_, last);
}

void Coverage::add_edge(Point a, Point b, const Paint& paint) {
  constexpr float kFar = 1e6F;  // also refuses NaN
  if (!(std::fabs(a.x) < kFar && std::fabs(a.y) < kFar && std::fabs(b.x) < kFar &&
        std::fabs(b.y) < kFar)) {
    return;
  }
  if (a.y > b.y) {
    std::swap(a, b);
    return add_edge(a, b, Paint{} - paint);
  }
  const auto bottom = static_cast<float>(rows_);
  constexpr auto kRight = static_cast<float>(kFrame);
  if (b.y <= 0.0F || a.y >= bottom || a.y == b.y || std::min(a.x, b.x) >= kRight) return;

  const float slope = (b.x - a.x) / (b.y - a.y);
  if (a.y < 0.0F) a = {a.x - a.y * slope, 0.0F};
  if (b.y > bottom) b = {b.x + (bottom - b.y) * slope, bottom};

  // Left of the frame it is an edge along the border; right of it, it is nothing.
  const auto cut = [&](float x) {
    return Point{x, std::min(std::max(a.y + (x - a.x) / slope, a.y), b.y)};
  };
  if (a.x <= 0.0F && b.x <= 0.0F) return add_slanted({0.0F, a.y}, {0.0F, b.y}, paint);
  if (a.x < 0.0F) {
    const Point p = cut(0.0F);
    if (p.y > a.y) add_slanted({0.0F, a.y}, p, paint);
    a = p;
  } else if (b.x < 0.0F) {
    const Point p = cut(0.0F);
    if (b.y > p.y) add_slanted(p, {0.0F, b.y}, paint);
    b = p;
  }
  if (a.x >= kRight && b.x >= kRight) return;
  if (a.x > kRight) {
    a = cut(kRight);
  } else if (b.x > kRight) {
    b = cut(kRight);
  }
  if (b.y > a.y) add_slanted(a, b, paint);
}

void Coverage::add_box(float left, float right, float top, float bottom, const Paint& paint) {
  const auto inside = [](float v, int end) {
    return std::min(std::max(v, 0.0F), static_cast<float>(end));
  };
  left = inside(left, kFrame);
  right = inside(right, kFrame);
  top = inside(top, rows_);
  bottom = inside(bottom, rows_);
  if (!(left < right && top < bottom)) return;
  const int first = static_cast<int>(top), last = std::min(static_cast<int>(bottom), rows_ - 1);
  for (int row = first; row <= last; ++row) {
    const float height = std::min(bottom, static_cast<float>(row + 1)) - top;
    if (height > 0.0F) {
      add_part(row, left, left, height, paint);
      add_part(row, right, right, -height, paint);
    }
    top = static_cast<float>(row + 1);
  }
  first_row_ = std::min(first_row_, first);
  last_row_ = std::max(last_row_, last);
}

void Coverage::draw(uint8_t* frame) {
  for (int row = first_row_; row <= last_row_; ++row) {
    const auto y = static_cast<size_t>(row);
    uint8_t* pixels = frame + 3 * kFrame * row;
    Row& cells = cells_[y];
    Paint sum{};
    int x = 0;
    for (size_t word = 0; word < 2; ++word) {
      for (uint64_t bits = touched_[y][word]; bits != 0; bits &= bits - 1) {
        const int next = static_cast<int>(64 * word) + lowest_bit(bits);
        if (next >= kFrame) {
          cells[static_cast<size_t>(next)] = Paint{};
          continue;
        }
        if (next > x) draw_span(pixels + 3 * x, next - x, sum);
        Paint& cell = cells[static_cast<size_t>(next)];
        add(sum, cell, 1.0F);
        cell = Paint{};
        draw_pixel(pixels + 3 * next, sum);
        x = next + 1;
      }
      touched_[y][word] = 0;
    }
    if (x < kFrame) draw_span(pixels + 3 * x, kFrame - x, sum);
  }
  first_row_ = rows_;
  last_row_ = -1;
}

}  // namespace wmf
