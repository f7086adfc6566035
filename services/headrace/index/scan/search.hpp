#pragma once

#include "layout.hpp"

namespace headrace {

// The rows of a segment as a search sees them.
struct Table {
  const uint8_t* blocks;
  const float* vectors;
  const uint32_t* ordinals;
  size_t rows;
  size_t dimension;
  const uint8_t* live;  // a bit a row, (rows + 7) / 8 bytes
  const uint8_t* allow;  // a bit an ordinal; null: all are allowed
  size_t allow_bytes;
};

// Blocks in cells around centres: a query looks into the `probes` cells whose centres score best, and into all blocks
// that are in no cell yet. Free blocks are in none and are not looked at.
struct Cells {
  const float* centres;
  size_t count;
  // the blocks in no cell are numbers[starts[0], starts[1]), those of cell c numbers[starts[c + 2], starts[c + 3])
  const int32_t* starts;
  const int32_t* numbers;
  size_t probes;
};

constexpr int32_t kFree = -1;
constexpr int32_t kInNoCell = -2;
// cell c stands at place c + kBeforeCells: blocks in no cell and free ones have places as well
constexpr size_t kBeforeCells = 2;

// Where the nearest of each query go: k places each, best first, equal scores by ordinal.
struct Answers {
  uint32_t* ordinals;
  float* scores;
  uint32_t* counts;
};

// Writes the codes of one vector to its row.
void write_row(uint8_t* blocks, size_t row, const float* vector, size_t dimension);

// The k rows of the greatest inner product with each query: of all rows, or of those that `cells` (if not null) have
// it look at.
void search(const Kernels& kernels, const Table& table, const Cells* cells, const float* queries, size_t count,
            size_t k, const Answers& answers);

}  // namespace headrace
