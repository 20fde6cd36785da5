#include "bindings/tensor.h"

#include <memory>

#include "bindings/device_array.h"
#include "cuda/streams.h"

namespace wmf {

std::string Border::enter(const ArrayView& array, const char* name) {
  const Place place = array.place();
  const std::string got = ", got one on " + array.device_text();
  if (place == kElsewhere) return " on the CPU or a CUDA device" + got;
  if (library_ != Library::kNone) {
    return " on " + place_text(place_) + ", where " + first_ + " is" + got +
           "; all arrays of a call must be on one device";
  }
  if (place != kCpu && target_.place != kAnywhere && place != target_.place) {
    const std::string here = " on " + place_text(target_.place) + ", " + target_.why + got;
    if (target_.place == kCpu) {
      return here + "; use device=\"" + place_text(place) + "\" there, or " + name + ".cpu()";
    }
    return here;
  }
  library_ = array.library();
  place_ = place;
  if (place != kCpu) stream_ = current_stream(library_, place);
  return "";
}

py::object Border::new_other(bool is_float, std::vector<int64_t> shape, void** memory) {
  py::object array;
  if (place_ != kCpu && library_ == Library::kTorch) {
    static const py::handle torch = py::module_::import("torch").release();
    array = torch.attr("empty")(py::tuple(py::cast(shape)),
                                py::arg("dtype") = torch.attr(is_float ? "float32" : "int32"),
                                py::arg("device") = place_);
  } else if (place_ != kCpu && library_ == Library::kCupy) {
    static const py::handle cupy = py::module_::import("cupy").release();
    const py::object device = cupy.attr("cuda").attr("Device")(place_);
    device.attr("__enter__")();
    try {
      array = cupy.attr("empty")(py::tuple(py::cast(shape)), is_float ? "float32" : "int32");
    } catch (...) {
      device.attr("__exit__")(py::none(), py::none(), py::none());
      throw;
    }
    device.attr("__exit__")(py::none(), py::none(), py::none());
  } else {
    const DLDataType dtype{is_float ? kDLFloat : kDLInt, 32, 1};
    auto own = std::make_shared<DeviceArray>(dtype, std::move(shape), place_);
    *memory = own->data();
    array = py::cast(own);
    if (place_ != kCpu) written_.push_back(array);
    return array;
  }
  ArrayView view(array);
  std::vector<py::object> held;  // in its own stream, nothing has to be kept
  if (library_ == Library::kCupy) view.see(stream_, &held);
  *memory = view.data();
  return array;
}

void Border::note_written(const py::object& object, const ArrayView& array) {
  if (array.library() == Library::kOwn && place_ != kCpu) written_.push_back(object);
}

void Border::keep_until_done() {
  // Under the GIL. On the CPU a call is over when it returns, and `held_` goes with this.
  if (computes_on() == kCpu || place_ == kCpu) return;
  struct Kept {
    std::shared_ptr<const cuda::Mark> mark;
    std::vector<py::object> objects;
  };
  static auto* kept = new std::vector<Kept>;  // never destroyed: there may be no Python any more
  const auto mark = std::make_shared<const cuda::Mark>(stream_, place_);
  for (const py::object& array : written_) {
    array.cast<std::shared_ptr<DeviceArray>>()->written(mark);
  }
  std::vector<Kept> still;
  for (Kept& entry : *kept) {
    if (!entry.mark->passed()) still.push_back(std::move(entry));
  }
  still.push_back({mark, std::move(held_)});
  std::vector<Kept> gone = std::exchange(*kept, std::move(still));  // may run Python code
  held_.clear();
}

}  // namespace wmf
