// The kernels for one instruction set. Included once for each, inside a namespace of its own, with DOTS defined:
//   DOTS(block, groups, codes, sums)  sums[16] of the products of a block's codes with a query's
// Nothing from the standard library may be used here: what it instantiates would be shared with plain code.

// Those of a block's rows in `mask` that are allowed.
static inline uint32_t allowed_of(uint32_t mask, size_t number, const Allowed& allowed) {
  uint32_t kept = 0;
  for (uint32_t left = mask; left; left &= left - 1) {
    const int row = __builtin_ctz(left);
    const uint32_t ordinal = allowed.ordinals[number * kRows + static_cast<size_t>(row)], word = ordinal >> 5;
    kept |= (word < allowed.words ? allowed.bits[word] >> (ordinal & 31) & 1 : 0) << row;
  }
  return kept;
}

static inline void append(const uint8_t* block, size_t groups, uint32_t mask, size_t number, const int32_t* sums,
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

static size_t scan(const uint8_t* blocks, size_t groups, const uint16_t* masks, const Course& course, size_t begin,
                   size_t end, const Allowed* allowed, Probe* probes, size_t count) {
  const size_t bytes = groups * kRows * kGroup + kFacts * kRows * sizeof(float);
  for (size_t place = begin; place < end; ++place) {
    const size_t number = course.numbers == nullptr ? place : course.numbers[place];
    if (course.numbers != nullptr) {
      // listed blocks lie anywhere: the processor cannot know which comes next
      const uint8_t* ahead = blocks + course.numbers[place + 2 < course.count ? place + 2 : place] * bytes;
      for (size_t byte = 0; byte < bytes; byte += 64) __builtin_prefetch(ahead + byte);
    }
    uint32_t mask = masks[number];
    if (mask && allowed != nullptr) mask = allowed_of(mask, number, *allowed);
    if (!mask) continue;
    for (size_t at = 0; at < count; ++at) {
      if (probes[at].found.room - probes[at].found.used < kRows) return place;
    }
    const uint8_t* block = blocks + number * bytes;
    for (size_t at = 0; at < count; ++at) {
      int32_t sums[kRows];
      DOTS(block, groups, probes[at].codes, sums);
      append(block, groups, mask, number, sums, probes[at]);
    }
  }
  return end;
}

static void filter(uint16_t* masks, size_t blocks, const Allowed& allowed) {
  for (size_t number = 0; number < blocks; ++number) {
    masks[number] = static_cast<uint16_t>(allowed_of(masks[number], number, allowed));
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
