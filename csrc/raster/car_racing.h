// CarRacing's 96x96 state, drawn as Gymnasium draws it: at 1000x800 with pygame, then smoothscaled.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "raster/coverage.h"

namespace wmf {

// The size of the score's picture at the left end of the dashboard, in pixels of the frame.
constexpr int kScore = 12;
// The size of the frames that V eats.
constexpr int kSmallFrame = 64;

// A colour as Gymnasium keeps it: 0 to 255, its fraction is dropped when drawing.
struct Colour {
  double r, g, b;
};

struct Ground {
  double half_size;   // of the playfield, in metres
  double patch_size;  // of a patch of grass, in metres
  Colour background, grass;
};

// What of a body is drawn: its place in the world (metres) and its orientation, as Box2D has them.
struct Body {
  float x, y;
  float sine, cosine;
};

struct WheelState {
  Body body;
  double phase;  // angle by which it has rolled, radians
  double omega;  // radians per second
};

// All that changes from frame to frame but the tiles' colours.
struct CarState {
  double time;  // since the episode began, seconds; the first one zooms in
  Body hull;
  double angle;                         // of the hull, radians
  double velocity_x, velocity_y, spin;  // of the hull, metres and radians per second
  double steering;                      // angle of the first wheel's joint, radians
  std::array<WheelState, 4> wheels;
};

// A convex polygon in metres, its corners in the order in which pygame gets them. Drawn with the
// first kMostCorners of them, which is all that Box2D allows.
constexpr size_t kMostCorners = 16;

struct Outline {
  std::array<std::array<float, 2>, kMostCorners> corners;
  size_t size;
};

struct CarShape {
  std::vector<Outline> hull;
  Outline wheel;
  double wheel_half_width, wheel_radius;  // metres
};

// The track and the car of one environment. Not for several threads at once.
class CarRacingScene {
 public:
  explicit CarRacingScene(CarShape shape);
  ~CarRacingScene();

  // The road's polygons, convex quadrangles in metres, in the order in which they are drawn:
  // (n, 4, 2). Polygons that share an edge must share its points exactly. n may be 0.
  void set_track(const double* quads, int64_t n);

  void set_ground(const Ground& ground) { ground_ = ground; }

  // Draws into `frame` (kFrame, kFrame, 3). `colours` are the n polygons' present colours;
  // `score` is the score's picture in grey (kScore, kScore). All numbers are finite.
  void draw(const CarState& state, const Colour* colours, const uint8_t* score, uint8_t* frame);

  // The same without the dashboard, area-averaged to `small` (kSmallFrame, kSmallFrame, 3).
  void draw_small(const CarState& state, const Colour* colours, uint8_t* small);

 private:
  struct Vertex {
    double x, y;                             // metres
    float normal_x = 0.0F, normal_y = 0.0F;  // of one of its edges
    float out_x = 0.0F, out_y = 0.0F;        // where it goes if its edges move out by 1
  };
  struct Edge {
    int32_t from, to;        // vertices, anticlockwise around `inside`
    int32_t inside, beyond;  // polygons; beyond is -1 where the road ends
  };
  struct Circle {
    double x, y, radius;  // metres
  };
  // Polygons that do not hide one another.
  struct Layer {
    std::vector<Vertex> vertices;
    std::vector<Edge> edges;
  };
  struct Camera;
  struct Polygon;

  void make_layer(const double* quads, const std::vector<int32_t>& members);
  void draw_scene(const CarState& state, const Colour* colours, uint8_t* frame);
  void draw_ground(const Camera& camera, uint8_t* frame);
  Point place(const Vertex& vertex, const Camera& camera) const;
  void draw_road(const Camera& camera, const Colour* colours, uint8_t* frame);
  void draw_car(const Camera& camera, const CarState& state, uint8_t* frame);
  void draw_dashboard(const CarState& state, const uint8_t* score, uint8_t* frame);
  void add_polygons(const Polygon* polygons, size_t n, const Paint& paint);

  CarShape car_;
  Ground ground_{};
  std::vector<Layer> layers_;
  std::vector<Circle> extents_;  // of all polygons: what is beyond their circles is not theirs
  Coverage coverage_, bars_;
  std::vector<Paint> paints_;  // of all polygons; all 0 where out of sight
  std::vector<Point> points_;  // of one layer's vertices, on the frame; where they are known
  std::vector<uint8_t> known_;
  std::vector<Polygon> hull_;
  std::array<uint8_t, 3 * kFrame * kFrame> scene_{};  // that draw_small shrinks
};

}  // namespace wmf
