// The kernels for one instruction set. Included once for each, inside a namespace of its own, with DOTS defined:
//   DOTS(block, groups, codes, sums)  sums[16] of the products of a block's codes with a query's
// Nothing from the standard library may be used here: what it instantiates would be shared with plain code.

using Mask = uint32_t;

// Those of a block's rows in `mask` that are allowed.
static inline Mask allowed_of(Mask mask, size_t number, const Allowed& allowed) {
  Mask kept = 0;
  for (Mask left = mask; left; left &= left - 1) {
    const int row = __builtin_ctz(left);
    const uint32_t ordinal = allowed.ordinals[number * kRows + static_cast<size_t>(row)], word = ordinal >> 5;
    kept |= (word < allowed.words ? allowed.bits[word] >> (ordinal & 31) & 1 : 0) << row;
  }
  return kept;
}

static inline void append(const uint8_t* block, size_t groups, Mask mask, size_t number, const int32_t* sums,
                          Probe& probe) {
  const float* scales = reinterpret_cast<const float*>(block + groups * kRows * kGroup);
  const float* errors = scales + kRows;
  const float* norms = errors + kRows;
  float score[kRows], slack[kRows];
  uint32_t passes = 0;
  for (size_t row = 0; row < kRows; ++row) {
    score[row] = static_cast<float>(sums[row] - probe.offset) * scales[row] * probe.scale;
    slack[row] = probe.norm * errors[row] + probe.error * norms[row];
  }
  for (size_t row = 0; row < kRows; ++row) {
    passes |= static_cast<uint32_t>(score[row] + slack[row] >= probe.threshold) << row;
  }
  passes &= mask;
  Candidates& found = probe.found;
  while (passes) {
    const size_t row = static_cast<size_t>(__builtin_ctz(passes));
    passes &= passes - 1;
    found.lower[found.used] = score[row] - slack[row];
    found.upper[found.used] = score[row] + slack[row];
    found.rows[found.used] = static_cast<uint32_t>(number * kRows + row);
    ++found.used;
  }
}

static inline void scan_block(const uint8_t* block, size_t groups, Mask mask, size_t number, Probe* probes,
                              size_t count) {
  for (size_t at = 0; at < count; ++at) {
    int32_t sums[kRows];
    DOTS(block, groups, probes[at].codes, sums);
    append(block, groups, mask, number, sums, probes[at]);
  }
}

static float dot(const float* one, const float* other, size_t dimension) {
  // 16 sums side by side: the compiler keeps them in vector registers without reordering anything
  float sums[16] = {};
  size_t at = 0;
  for (; at + 16 <= dimension; at += 16) {
    for (size_t lane = 0; lane < 16; ++lane) sums[lane] += one[at + lane] * other[at + lane];
  }
  for (size_t lane = 0; at + lane < dimension; ++lane) sums[lane] += one[at + lane] * other[at + lane];
  for (size_t width = 8; width; width /= 2) {
    for (size_t lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  return sums[0];
}

#include "course.h"
