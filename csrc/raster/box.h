// Averages over boxes of pixels: a frame brought to another size.
#pragma once

#include <cstdint>

namespace wmf {

// Brings `frame` (rows, columns, 3) to `out` (out_rows, out_columns, 3): a pixel is the mean,
// rounded half up, of the pixels whose centres lie in its box; first across the columns, then
// across the rows. Equal to the bit to Pillow's Resampling.BOX where that takes the columns first,
// too.
void box_resize(const uint8_t* frame, int64_t rows, int64_t columns, uint8_t* out, int64_t out_rows,
                int64_t out_columns);

}  // namespace wmf
