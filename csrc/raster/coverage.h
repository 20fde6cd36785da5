// Anti-aliased polygons by exact areas: edges in, pixels out.
//
// Every edge adds to each pixel it passes the change of the area to its right; a running sum over
// the row then is, pixel by pixel, how much of it the polygons cover. Polygons that meet in an edge
// may lie in one layer: the edge between them carries the difference of their colours, and no gap
// shows.
#pragma once

#include <array>
#include <cstdint>

namespace wmf {

// The size of Gymnasium's state, in pixels.
constexpr int kFrame = 96;

// A point of the frame in pixels; x to the right, y down, (0, 0) the top left corner.
struct Point {
  float x, y;
};

// What a polygon adds where it covers a whole pixel: coverage 1 and its colour (0 to 255). The
// difference of two paints is an edge between two polygons.
struct alignas(16) Paint {
  float cover, r, g, b;
};

inline Paint operator-(const Paint& a, const Paint& b) {
  return {a.cover - b.cover, a.r - b.r, a.g - b.g, a.b - b.b};
}

// A colour as it comes out of pygame's smoothscale: each of its two passes rounds down, and where
// all pixels are alike both lose one.
inline float scaled_down(int colour) { return colour > 2 ? static_cast<float>(colour - 2) : 0.0F; }

inline Paint paint_of(int r, int g, int b) {
  return {1.0F, scaled_down(r), scaled_down(g), scaled_down(b)};
}

// One layer of polygons over the frame's first `rows` rows. Overlapping polygons of one layer mix
// their colours; what must hide goes into a later layer.
class Coverage {
 public:
  explicit Coverage(int rows);

  // Adds the edge from a to b of a polygon that is anticlockwise to the eye: going down (in y) its
  // inside is to the right. What lies outside of the frame is cut off; NaN is left out.
  void add_edge(Point a, Point b, const Paint& paint);

  // Adds the pixels [left, right) of the strip of rows [top, bottom): fractions are areas.
  void add_box(float left, float right, float top, float bottom, const Paint& paint);

  // Draws the layer over `frame` (kFrame, kFrame, 3) and empties it.
  void draw(uint8_t* frame);

 private:
  using Row = std::array<Paint, kFrame + 2>;  // two past the end take what ends at the right border
  using Touched = std::array<uint64_t, 2>;    // bit x: Row[x] is not all 0

  void add_slanted(Point a, Point b, const Paint& paint);
  void add_part(int row, float from, float to, float height, const Paint& paint);

  int rows_;
  int first_row_, last_row_;  // touched since the last draw
  std::array<Row, kFrame> cells_{};
  std::array<Touched, kFrame> touched_{};
};

}  // namespace wmf
