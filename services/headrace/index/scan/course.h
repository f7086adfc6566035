// What goes over blocks, the same for every instruction set. Included once for each, inside its namespace, which has:
//   Mask                      a bit for each row of a block
//   allowed_of(mask, number, allowed)                               those of a block's rows that are allowed
//   scan_block(block, groups, mask, number, probes, count)          one block for some queries

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
    Mask mask = masks[number];
    if (mask && allowed != nullptr) mask = allowed_of(mask, number, *allowed);
    if (!mask) continue;
    for (size_t at = 0; at < count; ++at) {
      if (probes[at].found.room - probes[at].found.used < kRows) return place;
    }
    const uint8_t* block = blocks + number * bytes;
    scan_block(block, groups, mask, number, probes, count);
  }
  return end;
}

static void filter(uint16_t* masks, size_t blocks, const Allowed& allowed) {
  for (size_t number = 0; number < blocks; ++number) {
    if (masks[number]) masks[number] = static_cast<uint16_t>(allowed_of(masks[number], number, allowed));
  }
}
