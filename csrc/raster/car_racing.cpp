#include "raster/car_racing.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>

namespace wmf {

namespace {

// Gymnasium's window and camera (gymnasium/envs/box2d/car_racing.py).
constexpr double kWindowWidth = 1000, kWindowHeight = 800;
constexpr double kScale = 6.0, kZoom = 2.7;
constexpr int kSceneRows = 84;  // of the frame; below is the dashboard
constexpr float kColumn = static_cast<float>(kFrame / kWindowWidth);  // a window's pixel in ours
constexpr float kRow = static_cast<float>(kFrame / kWindowHeight);

// SDL_gfx's filled and anti-aliased polygons reach beyond their corners: edges that are nearer to
// the horizontal by so many of the window's pixels along y, the others along x. Measured.
constexpr float kOutline = 0.565F;

// Rounds towards 0, as Python's int() does. What is far off stays far off; NaN counts as such.
int whole(double value) {
  constexpr int kFar = 1000000;
  if (!(value > -kFar)) return -kFar;
  return value < kFar ? static_cast<int>(value) : kFar;
}

Paint paint_of(const Colour& colour) {
  return wmf::paint_of(whole(colour.r), whole(colour.g), whole(colour.b));
}

// A point on the frame from one in the window's pixels, whose rows count from the bottom.
Point on_frame(float x, float y) {
  return {x * kColumn, (static_cast<float>(kWindowHeight) - y) * kRow};
}

float steepness(float x, float y) { return std::max(std::fabs(x), std::fabs(y)); }

double cross(const double* a, const double* b, const double* c) {
  return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
}

double quad_area(const double* q) { return cross(q, q + 2, q + 4) + cross(q, q + 4, q + 6); }

// Whether two convex quadrangles have more than a sliver in common.
bool overlap(const double* p, const double* q) {
  constexpr double kSliver = 1e-3;  // metres
  for (int pass = 0; pass < 2; ++pass, std::swap(p, q)) {
    const double side = quad_area(p) < 0 ? -1.0 : 1.0;
    for (int i = 0; i < 4; ++i) {
      const double *a = p + 2 * i, *b = p + 2 * ((i + 1) % 4);
      const double length = std::hypot(b[0] - a[0], b[1] - a[1]);
      bool apart = length > 0;
      for (int j = 0; apart && j < 4; ++j) apart = side * cross(a, b, q + 2 * j) < kSliver * length;
      if (apart) return false;
    }
  }
  return true;
}

bool share_a_point(const double* p, const double* q) {
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      if (p[2 * i] == q[2 * j] && p[2 * i + 1] == q[2 * j + 1]) return true;
    }
  }
  return false;
}

struct Box {
  double left, right, low, high;
};

Box box_of(const double* q) {
  Box box{q[0], q[0], q[1], q[1]};
  for (int i = 1; i < 4; ++i) {
    box.left = std::min(box.left, q[2 * i]);
    box.right = std::max(box.right, q[2 * i]);
    box.low = std::min(box.low, q[2 * i + 1]);
    box.high = std::max(box.high, q[2 * i + 1]);
  }
  return box;
}

bool meet(const Box& a, const Box& b) {
  return a.left <= b.right && b.left <= a.right && a.low <= b.high && b.low <= a.high;
}

// Rows 0 to 83 of a frame, area-averaged to (kSmallFrame, kSmallFrame, 3), rounded half up.
void crop_and_shrink(const uint8_t* frame, uint8_t* small) {
  // Rows: 16 units each, 21 to one of the result, which are of two rows or three. Columns: 2 units
  // each, 3 to one of the result; so two pixels of the result are made of three.
  constexpr int kRowUnits = 16, kSmallRowUnits = 21, kUnits = 3 * kSmallRowUnits;
  constexpr size_t kBytes = 3 * kFrame;
  std::array<uint16_t, kBytes + 3> sum{};
  std::array<uint8_t, kBytes + 1> first{}, second{};  // at each byte, if the pixel began there
  for (int y = 0; y < kSmallFrame; ++y) {
    const int begin = kSmallRowUnits * y, end = begin + kSmallRowUnits;
    const int top = begin / kRowUnits, bottom = (end - 1) / kRowUnits;
    const auto of_top = static_cast<uint16_t>(kRowUnits * (top + 1) - begin);
    const auto of_bottom = static_cast<uint16_t>(end - kRowUnits * bottom);
    const auto of_middle = static_cast<uint16_t>(kSmallRowUnits - of_top - of_bottom);
    const uint8_t* upper = frame + static_cast<ptrdiff_t>(kBytes) * top;
    const uint8_t* lower = frame + static_cast<ptrdiff_t>(kBytes) * bottom;
    const uint8_t* middle = upper + kBytes;  // of no weight where it is the lower one
    for (size_t i = 0; i < kBytes; ++i) {
      sum[i] =
          static_cast<uint16_t>(of_top * upper[i] + of_middle * middle[i] + of_bottom * lower[i]);
    }
    for (size_t i = 0; i < kBytes; ++i) {
      const auto a = static_cast<uint16_t>(2 * sum[i] + sum[i + 3] + kUnits / 2);
      const auto b = static_cast<uint16_t>(sum[i] + 2 * sum[i + 3] + kUnits / 2);
      first[i] = static_cast<uint8_t>(a / kUnits);
      second[i] = static_cast<uint8_t>(b / kUnits);
    }
    // Four bytes at a time, the last of which the next pixel overwrites, if there is one.
    constexpr size_t kLast = kSmallFrame / 2 - 1;
    for (size_t x = 0; x < kLast; ++x) {
      std::memcpy(small + 6 * x, &first[9 * x], 4);
      std::memcpy(small + 6 * x + 3, &second[9 * x + 3], 4);
    }
    std::memcpy(small + 6 * kLast, &first[9 * kLast], 3);
    std::memcpy(small + 6 * kLast + 3, &second[9 * kLast + 3], 3);
    small += 3 * kSmallFrame;
  }
}

}  // namespace

// From metres to the window's pixels: x to the right, y up.
struct CarRacingScene::Camera {
  double sine, cosine, zoom, x, y;

  explicit Camera(const CarState& state) {
    const double angle = -state.angle;
    sine = std::sin(angle);
    cosine = std::cos(angle);
    zoom =
        0.1 * kScale * std::max(1 - state.time, 0.0) + kZoom * kScale * std::min(state.time, 1.0);
    const double scroll_x = -static_cast<double>(state.hull.x) * zoom;
    const double scroll_y = -static_cast<double>(state.hull.y) * zoom;
    x = kWindowWidth / 2 + (scroll_x * cosine - scroll_y * sine);
    y = kWindowHeight / 4 + (scroll_x * sine + scroll_y * cosine);
  }

  std::array<double, 2> rotate(double px, double py) const {
    return {px * cosine - py * sine, px * sine + py * cosine};
  }

  // The point in the world, metres, that is in the middle of the window.
  std::array<double, 2> centre() const {
    const double px = (kWindowWidth / 2 - x) / zoom, py = (kWindowHeight / 2 - y) / zoom;
    return {px * cosine + py * sine, py * cosine - px * sine};
  }

  // The pixel that pygame puts a corner at.
  std::array<int, 2> corner(double px, double py) const {
    const auto p = rotate(px, py);
    return {whole(p[0] * zoom + x), whole(p[1] * zoom + y)};
  }
};

void CarRacingScene::set_track(const double* quads, int64_t n) {
  layers_.clear();
  extents_.clear();
  paints_.assign(static_cast<size_t>(n), Paint{});
  const auto quad = [&](int32_t i) { return quads + 8 * static_cast<int64_t>(i); };
  std::vector<Box> boxes;
  for (int32_t i = 0; i < n; ++i) {
    boxes.push_back(box_of(quad(i)));
    const Box& box = boxes.back();
    extents_.push_back({(box.left + box.right) / 2, (box.low + box.high) / 2,
                        std::hypot(box.right - box.left, box.high - box.low) / 2});
  }

  std::vector<int32_t> members;
  for (int32_t i = 0; i < n; ++i) {
    const bool hides = std::any_of(members.begin(), members.end(), [&](int32_t j) {
      return meet(boxes[static_cast<size_t>(i)], boxes[static_cast<size_t>(j)]) &&
             !share_a_point(quad(i), quad(j)) && overlap(quad(i), quad(j));
    });
    if (hides) {
      make_layer(quads, members);
      // So that no seam shows, what the new layer continues is in it once more.
      std::vector<int32_t> neighbours;
      for (int32_t j = 0; j < i; ++j) {
        if (meet(boxes[static_cast<size_t>(i)], boxes[static_cast<size_t>(j)]) &&
            share_a_point(quad(i), quad(j))) {
          neighbours.push_back(j);
        }
      }
      members = std::move(neighbours);
    }
    members.push_back(i);
  }
  if (!members.empty()) make_layer(quads, members);
}

void CarRacingScene::make_layer(const double* quads, const std::vector<int32_t>& members) {
  Layer layer;
  std::map<std::pair<double, double>, int32_t> vertex_ids;
  std::map<std::pair<int32_t, int32_t>, size_t> edge_ids;
  for (const int32_t polygon : members) {
    const double* q = quads + 8 * static_cast<int64_t>(polygon);
    std::array<int32_t, 4> ids{};
    for (size_t i = 0; i < 4; ++i) {
      // Anticlockwise, whatever the order.
      const size_t k = quad_area(q) < 0 ? 3 - i : i;
      const auto known = vertex_ids.emplace(std::pair{q[2 * k], q[2 * k + 1]},
                                            static_cast<int32_t>(layer.vertices.size()));
      if (known.second) layer.vertices.push_back({q[2 * k], q[2 * k + 1]});
      ids[i] = known.first->second;
    }
    for (size_t i = 0; i < 4; ++i) {
      const int32_t from = ids[i], to = ids[(i + 1) % 4];
      if (from == to) continue;
      const auto other = edge_ids.find({to, from});
      if (other != edge_ids.end() && layer.edges[other->second].beyond < 0) {
        layer.edges[other->second].beyond = polygon;
      } else {
        edge_ids[{from, to}] = layer.edges.size();
        layer.edges.push_back({from, to, polygon, -1});
      }
    }
  }
  // Each edge moves out by 1 along its normal n: over the grass, or, between two polygons, over the
  // one drawn before. A corner goes where that suits all of its edges best: the d with the least
  // sum of (n d - 1)^2.
  struct Sums {
    double xx = 1e-3, xy = 0, yy = 1e-3, x = 0, y = 0;  // a little to stay where no edge decides
  };
  std::vector<Sums> sums(layer.vertices.size());
  for (const Edge& edge : layer.edges) {
    const Vertex& a = layer.vertices[static_cast<size_t>(edge.from)];
    const Vertex& b = layer.vertices[static_cast<size_t>(edge.to)];
    const double side = (edge.beyond > edge.inside ? -1.0 : 1.0) / std::hypot(b.x - a.x, b.y - a.y);
    const double nx = (b.y - a.y) * side, ny = (a.x - b.x) * side;
    for (const int32_t v : {edge.from, edge.to}) {
      Sums& sum = sums[static_cast<size_t>(v)];
      sum.xx += nx * nx;
      sum.xy += nx * ny;
      sum.yy += ny * ny;
      sum.x += nx;
      sum.y += ny;
      layer.vertices[static_cast<size_t>(v)].normal_x = static_cast<float>(nx);
      layer.vertices[static_cast<size_t>(v)].normal_y = static_cast<float>(ny);
    }
  }
  for (size_t v = 0; v < sums.size(); ++v) {
    const Sums& sum = sums[v];
    const double determinant = sum.xx * sum.yy - sum.xy * sum.xy;
    layer.vertices[v].out_x = static_cast<float>((sum.x * sum.yy - sum.y * sum.xy) / determinant);
    layer.vertices[v].out_y = static_cast<float>((sum.y * sum.xx - sum.x * sum.xy) / determinant);
  }
  layers_.push_back(std::move(layer));
}

void CarRacingScene::draw_ground(const Camera& camera, uint8_t* frame) {
  const Paint background = paint_of(ground_.background);
  const Paint grass = paint_of(ground_.grass) - background;
  // All edges lie along the world's axes: moved out by this many pixels, corners by both.
  const float outline =
      kOutline * steepness(static_cast<float>(camera.sine), static_cast<float>(camera.cosine));
  const auto add_square = [&](double left, double low, double size, const Paint& paint) {
    std::array<Point, 4> points{};
    for (size_t i = 0; i < 4; ++i) {
      const bool right = i == 1 || i == 2, high = i >= 2;
      const auto corner = camera.corner(left + (right ? size : 0), low + (high ? size : 0));
      const auto out = camera.rotate(right ? 1 : -1, high ? 1 : -1);
      points[i] =
          on_frame(static_cast<float>(corner[0]) + 0.5F + outline * static_cast<float>(out[0]),
                   static_cast<float>(corner[1]) + 0.5F + outline * static_cast<float>(out[1]));
    }
    for (size_t i = 0; i < 4; ++i) coverage_.add_edge(points[i], points[(i + 1) % 4], paint);
  };
  const double half = ground_.half_size;
  add_square(-half, -half, 2 * half, background);

  // The patches in view: those that the window's box in the world meets.
  const auto [wx, wy] = camera.centre();
  const double c = std::fabs(camera.cosine), s = std::fabs(camera.sine);
  const double reach_x = (kWindowWidth * c + kWindowHeight * s) / 2 / camera.zoom;
  const double reach_y = (kWindowWidth * s + kWindowHeight * c) / 2 / camera.zoom;
  const double size = ground_.patch_size;
  const int last = 2 * whole(half / size / 2 + 0.5);  // patches from the middle to the border
  const auto range = [&](double middle, double reach) {
    // One patch more on each side; even numbers only.
    const int from = whole(std::floor((middle - reach) / size)) - 1;
    const int to = whole(std::floor((middle + reach) / size)) + 1;
    const int even = from - (from % 2 != 0 ? 1 : 0);
    return std::pair{std::max(even, -last), std::min(to, last - 1)};
  };
  const auto columns = range(wx, reach_x), rows = range(wy, reach_y);
  for (int i = columns.first; i <= columns.second; i += 2) {
    for (int j = rows.first; j <= rows.second; j += 2) add_square(size * i, size * j, size, grass);
  }
  coverage_.draw(frame);
}

Point CarRacingScene::place(const Vertex& vertex, const Camera& camera) const {
  const auto sine = static_cast<float>(camera.sine), cosine = static_cast<float>(camera.cosine);
  const auto corner = camera.corner(vertex.x, vertex.y);
  // Its edges are nearly in line or at right angles, so one's steepness is that of all.
  const float outline = kOutline * steepness(vertex.normal_x * cosine - vertex.normal_y * sine,
                                             vertex.normal_x * sine + vertex.normal_y * cosine);
  const float out_x = vertex.out_x * cosine - vertex.out_y * sine;
  const float out_y = vertex.out_x * sine + vertex.out_y * cosine;
  return on_frame(static_cast<float>(corner[0]) + 0.5F + outline * out_x,
                  static_cast<float>(corner[1]) + 0.5F + outline * out_y);
}

void CarRacingScene::draw_road(const Camera& camera, const Colour* colours, uint8_t* frame) {
  const auto [x, y] = camera.centre();
  const double reach = (std::hypot(kWindowWidth, kWindowHeight) / 2 + 2) / camera.zoom;
  for (size_t i = 0; i < extents_.size(); ++i) {
    const Circle& extent = extents_[i];
    const double dx = extent.x - x, dy = extent.y - y, far = reach + extent.radius;
    paints_[i] = dx * dx + dy * dy < far * far ? paint_of(colours[i]) : Paint{};
  }
  for (const Layer& layer : layers_) {
    points_.resize(layer.vertices.size());
    known_.assign(layer.vertices.size(), 0);
    const auto point = [&](int32_t vertex) {
      const auto v = static_cast<size_t>(vertex);
      if (known_[v] == 0) {
        points_[v] = place(layer.vertices[v], camera);
        known_[v] = 1;
      }
      return points_[v];
    };
    for (const Edge& edge : layer.edges) {
      Paint paint = paints_[static_cast<size_t>(edge.inside)];
      if (edge.beyond >= 0) paint = paint - paints_[static_cast<size_t>(edge.beyond)];
      if (paint.cover == 0.0F && paint.r == 0.0F && paint.g == 0.0F && paint.b == 0.0F) continue;
      coverage_.add_edge(point(edge.from), point(edge.to), paint);
    }
    coverage_.draw(frame);
  }
}

// pygame.draw.polygon of a convex polygon, pixel for pixel. The union of several is drawn at once.
struct CarRacingScene::Polygon {
  std::array<std::array<int, 2>, kMostCorners> corners;
  size_t size;
  int low, high;  // rows

  Polygon(const Outline& outline, const Body& body, const Camera& camera)
      : corners(), size(std::min(outline.size, kMostCorners)), low(1 << 30), high(-(1 << 30)) {
    for (size_t i = 0; i < size; ++i) {
      const float vx = outline.corners[i][0], vy = outline.corners[i][1];
      const float px = (body.cosine * vx - body.sine * vy) + body.x;
      const float py = (body.sine * vx + body.cosine * vy) + body.y;
      corners[i] = camera.corner(static_cast<double>(px), static_cast<double>(py));
      low = std::min(low, corners[i][1]);
      high = std::max(high, corners[i][1]);
    }
  }

  // The first and the last pixel of a row; the first is beyond the last where there is none.
  std::pair<int, int> row(int y) const {
    std::pair<int, int> ends{1, 0};
    if (y < low || y > high || low == high) return ends;
    int crossings = 0;
    for (size_t i = 0; i < size; ++i) {
      std::array<int, 2> a = corners[(i + size - 1) % size], b = corners[i];
      if (a[1] == b[1]) continue;
      if (a[1] > b[1]) std::swap(a, b);
      if (!((y >= a[1] && y < b[1]) || (y == high && b[1] == high))) continue;
      const float part = static_cast<float>(y - a[1]) * static_cast<float>(b[0] - a[0]) /
                         static_cast<float>(b[1] - a[1]);
      // That the order of the corners decides how it is rounded is pygame's.
      const int x =
          a[0] + static_cast<int>(crossings % 2 == 0 ? std::floor(part) : std::ceil(part));
      ends = crossings == 0 ? std::pair{x, x}
                            : std::pair{std::min(ends.first, x), std::max(ends.second, x)};
      ++crossings;
    }
    return ends;
  }
};

void CarRacingScene::add_polygons(const Polygon* polygons, size_t n, const Paint& paint) {
  constexpr size_t kMost = 8;  // at once
  n = std::min(n, kMost);
  int low = 1 << 30, high = -(1 << 30);
  for (size_t i = 0; i < n; ++i) {
    low = std::min(low, polygons[i].low);
    high = std::max(high, polygons[i].high);
  }
  high = std::min(high, static_cast<int>(kWindowHeight));
  for (int y = std::max(low, 0); y <= high; ++y) {
    std::array<std::pair<int, int>, kMost> parts{};
    size_t count = 0;
    for (size_t i = 0; i < n; ++i) {
      const auto part = polygons[i].row(y);
      if (part.first > part.second) continue;
      size_t at = count++;
      for (; at > 0 && parts[at - 1].first > part.first; --at) parts[at] = parts[at - 1];
      parts[at] = part;
    }
    int done = -(1 << 30);  // up to here the row is drawn
    for (size_t i = 0; i < count; ++i) {
      const int from = std::max(parts[i].first, done), to = parts[i].second + 1;
      if (from >= to) continue;
      const Point a = on_frame(static_cast<float>(from), static_cast<float>(y + 1));
      const Point b = on_frame(static_cast<float>(to), static_cast<float>(y));
      coverage_.add_box(a.x, b.x, a.y, b.y, paint);
      done = to;
    }
  }
}

void CarRacingScene::draw_car(const Camera& camera, const CarState& state, uint8_t* frame) {
  const Paint black = wmf::paint_of(0, 0, 0);
  const Paint mark = wmf::paint_of(77, 77, 77) - black;
  const double r = car_.wheel_radius;
  const auto w = static_cast<float>(car_.wheel_half_width);
  for (const WheelState& wheel : state.wheels) {
    const Polygon tyre(car_.wheel, wheel.body, camera);
    add_polygons(&tyre, 1, black);
    // The part of the rim that is painted shows as it comes round.
    const double s1 = std::sin(wheel.phase), s2 = std::sin(wheel.phase + 1.2);
    double c1 = std::cos(wheel.phase), c2 = std::cos(wheel.phase + 1.2);
    if (s1 > 0 && s2 > 0) continue;
    if (s1 > 0) c1 = c1 > 0 ? 1 : c1 < 0 ? -1 : 0;
    if (s2 > 0) c2 = c2 > 0 ? 1 : c2 < 0 ? -1 : 0;
    const auto y1 = static_cast<float>(r * c1), y2 = static_cast<float>(r * c2);
    const Polygon rim({{{{-w, y1}, {w, y1}, {w, y2}, {-w, y2}}}, 4}, wheel.body, camera);
    add_polygons(&rim, 1, mark);
  }
  coverage_.draw(frame);

  hull_.clear();
  for (const Outline& part : car_.hull) hull_.emplace_back(part, state.hull, camera);
  add_polygons(hull_.data(), hull_.size(), wmf::paint_of(204, 0, 0));
  coverage_.draw(frame);
}

void CarRacingScene::draw_dashboard(const CarState& state, const uint8_t* score, uint8_t* frame) {
  std::memset(frame + 3 * kFrame * kSceneRows, 0, 3 * kFrame * (kFrame - kSceneRows));
  constexpr double s = kWindowWidth / 40, h = kWindowHeight / 40;
  constexpr double kLeast = 1e-4;  // what is less is not shown
  // From one corner to the other, both included; here rows count from the top.
  const auto fill = [&](double left, double right, double top, double bottom, const Paint& paint) {
    const auto [x0, x1] = std::minmax({whole(left), whole(right)});
    const auto [y0, y1] = std::minmax({whole(top), whole(bottom)});
    bars_.add_box(static_cast<float>(x0) * kColumn, static_cast<float>(x1 + 1) * kColumn,
                  static_cast<float>(y0) * kRow, static_cast<float>(y1 + 1) * kRow, paint);
  };
  // `shared`: how many pixels of its width the next one, to its right, hides.
  const auto vertical = [&](int place, double value, double length, int shared,
                            const Paint& paint) {
    if (!(std::fabs(value) > kLeast)) return;
    fill(place * s, (place + 1) * s - shared, kWindowHeight - (h + h * length), kWindowHeight - h,
         paint);
  };
  const auto horizontal = [&](int place, double value, double length, const Paint& paint) {
    if (!(std::fabs(value) > kLeast)) return;
    fill(place * s, (place + length) * s, kWindowHeight - 4 * h, kWindowHeight - 2 * h, paint);
  };
  const double speed =
      std::sqrt(state.velocity_x * state.velocity_x + state.velocity_y * state.velocity_y);
  vertical(5, speed, 0.02 * speed, 0, wmf::paint_of(255, 255, 255));
  for (int i = 0; i < 4; ++i) {
    const double omega = state.wheels[static_cast<size_t>(i)].omega;
    vertical(7 + i, omega, 0.01 * omega, i < 3 ? 1 : 0, wmf::paint_of(i < 2 ? 0 : 51, 0, 255));
  }
  horizontal(20, state.steering, -10.0 * state.steering, wmf::paint_of(0, 255, 0));
  horizontal(30, state.spin, -0.8 * state.spin, wmf::paint_of(255, 0, 0));
  bars_.draw(frame);

  for (int y = 0; y < kScore; ++y) {
    for (int x = 0; x < kScore; ++x) {
      std::memset(frame + 3 * (kFrame * (kFrame - kScore + y) + x), score[kScore * y + x], 3);
    }
  }
}

CarRacingScene::CarRacingScene(CarShape shape)
    : car_(std::move(shape)), coverage_(kSceneRows), bars_(kFrame) {}

CarRacingScene::~CarRacingScene() = default;

void CarRacingScene::draw_scene(const CarState& state, const Colour* colours, uint8_t* frame) {
  const Camera camera(state);
  std::memset(frame, 0, 3 * kFrame * kSceneRows);
  draw_ground(camera, frame);
  draw_road(camera, colours, frame);
  draw_car(camera, state, frame);
}

void CarRacingScene::draw(const CarState& state, const Colour* colours, const uint8_t* score,
                          uint8_t* frame) {
  draw_scene(state, colours, frame);
  draw_dashboard(state, score, frame);
}

void CarRacingScene::draw_small(const CarState& state, const Colour* colours, uint8_t* small) {
  draw_scene(state, colours, scene_.data());
  crop_and_shrink(scene_.data(), small);
}

}  // namespace wmf
