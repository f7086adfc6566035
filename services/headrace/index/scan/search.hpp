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

// Where the nearest of each query go: k places each, best first, equal scores by ordinal.
struct Answers {
  uint32_t* ordinals;
  float* scores;
  uint32_t* counts;
};

// Writes the codes of one vector to its row.
void write_row(uint8_t* blocks, size_t row, const float* vector, size_t dimension);

// The k rows of the greatest inner product with each query, exactly.
void search(const Kernels& kernels, const Table& table, const float* queries, size_t count, size_t k,
            const Answers& answers);

}  // namespace headrace
