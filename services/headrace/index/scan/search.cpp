// Exact k best by inner product through an int8 copy of the vectors.
//
// The copy is scanned, a quarter of the bytes. Of each row its true score is known to within a bound (Cauchy-Schwarz
// over what coding lost), so whatever cannot be among the k best is left out with certainty; of the few rows that are
// left the true score is computed from the vectors themselves.
#include "search.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

namespace headrace {
namespace {

constexpr float kMostCode = 127.0f;
constexpr int kZeroCode = 128;
// rounding of a sum of products in float32, relative to the product of the norms, for each number summed
constexpr double kRounding = 6e-8;
// keeps a bound a bound when it is itself rounded
constexpr double kUp = 1.0 + 1e-6;
// of an interval in which a threshold lies, at most: as many as a float32 has bits to tell apart
constexpr int kHalvings = 24;
// a threshold that one in so many too many reach is good enough
constexpr size_t kFew = 16;
// blocks that many queries go over one after the other, while the second-level cache holds them
constexpr size_t kChunkBytes = 128 << 10;

struct Coded {
  float scale;
  double norm;        // of the vector
  double coded_norm;  // of what the codes stand for
  double error;       // norm of the difference
};

template <class Put>
Coded code(const float* vector, size_t dimension, Put put) {
  float most = 0;
  for (size_t at = 0; at < dimension; ++at) most = std::max(most, std::fabs(vector[at]));
  float scale = most / kMostCode;
  if (scale < std::numeric_limits<float>::min()) scale = 0;
  double norm = 0, coded = 0, error = 0;
  for (size_t at = 0; at < dimension; ++at) {
    const float rounded = scale == 0 ? 0.0f : std::nearbyint(vector[at] / scale);
    const float number = std::min(std::max(rounded, -kMostCode), kMostCode);
    put(at, static_cast<int>(number));
    const double meant = static_cast<double>(scale) * number;
    norm += static_cast<double>(vector[at]) * vector[at];
    coded += meant * meant;
    error += (vector[at] - meant) * (vector[at] - meant);
  }
  return {scale, std::sqrt(norm), std::sqrt(coded), std::sqrt(error)};
}

// A score that at least k of the numbers reach, and few more: by halving, which is quicker than to order them.
float reached_by(const float* numbers, size_t count, size_t k) {
  float low = numbers[0], high = numbers[0];
  for (size_t at = 1; at < count; ++at) {
    low = std::min(low, numbers[at]);
    high = std::max(high, numbers[at]);
  }
  for (int step = 0; step < kHalvings; ++step) {
    const float middle = low + (high - low) / 2;
    uint32_t reaching = 0;
    for (size_t at = 0; at < count; ++at) reaching += numbers[at] >= middle;
    (reaching >= k ? low : high) = middle;
    if (reaching >= k && reaching <= k + k / kFew) break;
  }
  return low;
}

// A query with the rows that may be among its best.
class Query {
 public:
  Query(const float* vector, size_t dimension, size_t k)
      : probe{}, codes_(groups_of(dimension) * kGroup, 0), k_(k) {
    int sum = 0;
    const Coded coded = code(vector, dimension, [&](size_t at, int number) {
      codes_[at] = static_cast<int8_t>(number);
      sum += number;
    });
    reserve(4 * k + 4 * kRows);
    probe.codes = codes_.data();
    probe.offset = kZeroCode * sum;
    probe.scale = coded.scale;
    probe.norm = static_cast<float>(coded.norm * kUp);
    probe.error = static_cast<float>(coded.error * kUp);
    probe.threshold = -std::numeric_limits<float>::infinity();
  }

  bool is_full() const { return probe.found.room - probe.found.used < kRows; }

  // Raises the threshold to what k rows reach for certain, and drops what cannot reach it.
  void tighten() {
    Candidates& found = probe.found;
    if (found.used >= k_) {
      probe.threshold = std::max(probe.threshold, reached_by(found.lower, found.used, k_));
      size_t kept = 0;
      // written each time and counted when it stays: whether it does is nothing that a processor could guess
      for (size_t at = 0; at < found.used; ++at) {
        const bool stays = found.upper[at] >= probe.threshold;
        found.lower[kept] = found.lower[at];
        found.upper[kept] = found.upper[at];
        found.rows[kept] = found.rows[at];
        kept += stays;
      }
      found.used = kept;
    }
    if (found.used > found.room / 2) reserve(2 * found.room);
  }

  Probe probe;

 private:
  void reserve(size_t room) {
    lower_.resize(room);
    upper_.resize(room);
    rows_.resize(room);
    probe.found = {lower_.data(), upper_.data(), rows_.data(), probe.found.used, room};
  }

  std::vector<int8_t> codes_;
  std::vector<float> lower_, upper_;
  std::vector<uint32_t> rows_;
  size_t k_;
};

struct Scored {
  float score;
  uint32_t ordinal;
};

bool is_before(const Scored& one, const Scored& other) {
  return one.score > other.score || (one.score == other.score && one.ordinal < other.ordinal);
}

void answer(const Kernels& kernels, const Table& table, const float* query, Query& asked, size_t k,
            std::vector<Scored>& scored, uint32_t* ordinals, float* scores, uint32_t* count) {
  asked.tighten();
  const Candidates& found = asked.probe.found;
  scored.resize(found.used);
  for (size_t at = 0; at < found.used; ++at) {
    const size_t ahead = found.rows[std::min(at + 4, found.used - 1)];
    const char* line = reinterpret_cast<const char*>(table.vectors + ahead * table.dimension);
    for (size_t byte = 0; byte < table.dimension * sizeof(float); byte += 64) __builtin_prefetch(line + byte);
    const size_t row = found.rows[at];
    scored[at] = {kernels.dot(query, table.vectors + row * table.dimension, table.dimension), table.ordinals[row]};
  }
  const size_t wanted = std::min(k, scored.size());
  if (wanted < scored.size()) std::nth_element(scored.begin(), scored.begin() + wanted, scored.end(), is_before);
  std::sort(scored.begin(), scored.begin() + wanted, is_before);
  for (size_t at = 0; at < wanted; ++at) {
    ordinals[at] = scored[at].ordinal;
    scores[at] = scored[at].score;
  }
  *count = static_cast<uint32_t>(wanted);
}

std::vector<uint16_t> masks_of(const Table& table) {
  std::vector<uint16_t> masks((table.rows + kRows - 1) / kRows, 0);
  std::memcpy(masks.data(), table.live, (table.rows + 7) / 8);
  return masks;
}

std::vector<uint32_t> words_of(const Table& table) {
  std::vector<uint32_t> words((table.allow_bytes + 3) / 4, 0);
  if (table.allow_bytes) std::memcpy(words.data(), table.allow, table.allow_bytes);
  return words;
}

void scan(const Kernels& kernels, const Table& table, const std::vector<uint16_t>& masks, const Course& course,
          const Allowed* allowed, size_t begin, size_t end, Query* queries, size_t count) {
  Probe probes[kTogether];
  for (size_t at = 0; at < count; ++at) probes[at] = queries[at].probe;
  while (begin < end) {
    begin = kernels.scan(table.blocks, groups_of(table.dimension), masks.data(), course, begin, end, allowed, probes,
                         count);
    for (size_t at = 0; at < count; ++at) {
      queries[at].probe = probes[at];
      if (begin < end && queries[at].is_full()) queries[at].tighten();
      probes[at] = queries[at].probe;
    }
  }
}

void scan_all(const Kernels& kernels, const Table& table, const std::vector<uint16_t>& masks, const Allowed* allowed,
              std::vector<Query>& asked) {
  const Course course = {nullptr, masks.size()};
  const size_t chunk = std::max<size_t>(1, kChunkBytes / block_bytes(table.dimension));
  const size_t together = asked.size() > kTogether ? chunk : masks.size();
  for (size_t begin = 0; begin < masks.size(); begin += together) {
    const size_t end = std::min(begin + together, masks.size());
    for (size_t first = 0; first < asked.size(); first += kTogether) {
      scan(kernels, table, masks, course, allowed, begin, end, asked.data() + first,
           std::min(kTogether, asked.size() - first));
    }
  }
}

// The numbers of the blocks that a query looks into.
void probe(const Kernels& kernels, const Table& table, const Cells& cells, const std::vector<uint16_t>& masks,
           const float* query, std::vector<uint32_t>& numbers) {
  std::vector<std::pair<float, size_t>> scored(cells.count);
  for (size_t cell = 0; cell < cells.count; ++cell) {
    scored[cell] = {kernels.dot(query, cells.centres + cell * table.dimension, table.dimension), cell};
  }
  const size_t probes = std::min(cells.probes, cells.count);
  std::nth_element(scored.begin(), scored.begin() + probes, scored.end(), std::greater<>());
  numbers.clear();
  const auto look_into = [&](size_t place) {
    for (int32_t at = cells.starts[place]; at < cells.starts[place + 1]; ++at) {
      const uint32_t number = static_cast<uint32_t>(cells.numbers[at]);
      if (number < masks.size() && masks[number]) numbers.push_back(number);
    }
  };
  look_into(0);
  for (size_t at = 0; at < probes; ++at) look_into(scored[at].second + kBeforeCells);
}

}  // namespace

void write_row(uint8_t* blocks, size_t row, const float* vector, size_t dimension) {
  uint8_t* block = blocks + row / kRows * block_bytes(dimension);
  const size_t lane = row % kRows;
  const Coded coded = code(vector, dimension, [&](size_t at, int number) {
    block[at / kGroup * kRows * kGroup + lane * kGroup + at % kGroup] = static_cast<uint8_t>(number + kZeroCode);
  });
  for (size_t at = dimension; at < groups_of(dimension) * kGroup; ++at) {
    block[at / kGroup * kRows * kGroup + lane * kGroup + at % kGroup] = kZeroCode;
  }
  const double rounding = kRounding * static_cast<double>(dimension + 8) * coded.norm;
  const float facts[kFacts] = {coded.scale, static_cast<float>((coded.error + rounding) * kUp),
                               static_cast<float>(coded.coded_norm * kUp)};
  uint8_t* place = block + groups_of(dimension) * kRows * kGroup + lane * sizeof(float);
  for (size_t at = 0; at < kFacts; ++at) std::memcpy(place + at * kRows * sizeof(float), &facts[at], sizeof(float));
}

void search(const Kernels& kernels, const Table& table, const Cells* cells, const float* queries, size_t count,
            size_t k, const Answers& answers) {
  std::vector<uint16_t> masks = masks_of(table);
  const std::vector<uint32_t> words = words_of(table);
  const Allowed allowed = {table.ordinals, words.data(), words.size()};
  // for few queries while scanning, beside what waits for memory; for many once
  const bool is_many = count > kTogether && cells == nullptr;
  if (table.allow != nullptr && is_many) kernels.filter(masks.data(), masks.size(), allowed);
  const Allowed* looked_up = table.allow != nullptr && !is_many ? &allowed : nullptr;
  std::vector<Query> asked;
  asked.reserve(count);
  for (size_t at = 0; at < count; ++at) asked.emplace_back(queries + at * table.dimension, table.dimension, k);
  if (cells == nullptr) {
    scan_all(kernels, table, masks, looked_up, asked);
  } else {
    std::vector<uint32_t> numbers;
    for (size_t at = 0; at < count; ++at) {
      probe(kernels, table, *cells, masks, queries + at * table.dimension, numbers);
      const Course course = {numbers.data(), numbers.size()};
      scan(kernels, table, masks, course, looked_up, 0, numbers.size(), &asked[at], 1);
    }
  }
  std::vector<Scored> scored;
  for (size_t at = 0; at < count; ++at) {
    answer(kernels, table, queries + at * table.dimension, asked[at], k, scored, answers.ordinals + at * k,
           answers.scores + at * k, answers.counts + at);
  }
}

}  // namespace headrace
