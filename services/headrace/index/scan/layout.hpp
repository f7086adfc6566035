// What the scans share: how codes lie in memory, what a query brings along, where candidates go.
//
// A block holds 16 rows: for each group of 4 dimensions 64 bytes (16 rows × 4 codes), then 16 scales, 16 errors and
// 16 norms as float32. A code is an unsigned byte, round(x / scale) + 128; dimensions beyond the last are 128.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

constexpr size_t kRows = 16;       // of a block
constexpr size_t kGroup = 4;       // dimensions that stand together
constexpr size_t kTogether = 8;    // queries that a scan takes at once, at most
constexpr size_t kFacts = 3;       // floats a row beside its codes

inline size_t groups_of(size_t dimension) { return (dimension + kGroup - 1) / kGroup; }
inline size_t block_bytes(size_t dimension) {
  return groups_of(dimension) * kRows * kGroup + kFacts * kRows * sizeof(float);
}

// Rows that may be among the best: their scores lie within [lower, upper].
struct Candidates {
  float* lower;
  float* upper;
  uint32_t* rows;
  size_t used;
  size_t room;
};

// A query: its codes (signed bytes, a whole number of groups), and what turns sums of products into scores.
struct Probe {
  const int8_t* codes;
  int32_t offset;   // 128 × the sum of the codes, which the rows' +128 adds
  float scale;
  float norm;       // of the query
  float error;      // norm of what coding the query lost
  float threshold;  // no row whose upper bound is below this can be among the best
  Candidates found;
};

// Which items a filter allows: a bit an ordinal, in whole words of 32 bits, and the ordinal of each row.
struct Allowed {
  const uint32_t* ordinals;
  const uint32_t* bits;
  size_t words;
};

// Which blocks are scanned: those numbered [0, count), or the `count` numbers that are listed.
struct Course {
  const uint32_t* numbers;
  size_t count;
};

// Scans the places [begin, end) of a course for up to kTogether queries; masks[b] has a bit for each row of block b
// that may be found, if `allowed` has it too (null: it has all).
// Stops early, before a block for which some query has no room for 16 more candidates. Returns where it stopped.
using Scan = size_t (*)(const uint8_t* blocks, size_t groups, const uint16_t* masks, const Course& course, size_t begin,
                        size_t end, const Allowed* allowed, Probe* probes, size_t count);
// Clears the bits of rows that are not allowed.
using Filter = void (*)(uint16_t* masks, size_t blocks, const Allowed& allowed);
// The inner product of two vectors.
using Dot = float (*)(const float* one, const float* other, size_t dimension);

struct Kernels {
  const char* name;
  Scan scan;
  Filter filter;
  Dot dot;
};

}  // namespace headrace
