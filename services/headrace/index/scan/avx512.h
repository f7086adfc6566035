// The scan for AVX-512 with VNNI: a block's 16 rows are the 16 lanes, and up to 8 queries share what is loaded.

using Mask = __mmask16;

static inline __mmask16 passing(const uint8_t* facts, __m512i sums, const Probe& probe, __m512& score, __m512& slack) {
  const __m512 scales = _mm512_loadu_ps(facts);
  const __m512 errors = _mm512_loadu_ps(facts + 64);
  const __m512 norms = _mm512_loadu_ps(facts + 128);
  const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, _mm512_set1_epi32(probe.offset)));
  score = _mm512_mul_ps(exact, _mm512_mul_ps(scales, _mm512_set1_ps(probe.scale)));
  slack = _mm512_fmadd_ps(errors, _mm512_set1_ps(probe.norm), _mm512_mul_ps(norms, _mm512_set1_ps(probe.error)));
  return _mm512_cmp_ps_mask(_mm512_add_ps(score, slack), _mm512_set1_ps(probe.threshold), _CMP_GE_OQ);
}

// Those of a block's rows in `mask` that are allowed.
static inline Mask allowed_of(Mask mask, size_t number, const Allowed& allowed) {
  const __m512i ordinals = _mm512_maskz_loadu_epi32(mask, allowed.ordinals + number * kRows);
  const __m512i words = _mm512_srli_epi32(ordinals, 5);
  const __m512i most = _mm512_set1_epi32(static_cast<int>(allowed.words));
  const __mmask16 inside = _mm512_mask_cmplt_epu32_mask(mask, words, most);
  const __m512i bits = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), inside, words, allowed.bits, 4);
  const __m512i place = _mm512_and_si512(ordinals, _mm512_set1_epi32(31));
  return _mm512_mask_test_epi32_mask(inside, bits, _mm512_sllv_epi32(_mm512_set1_epi32(1), place));
}

static inline void keep(const uint8_t* facts, __m512i sums, __mmask16 mask, size_t number, Probe& probe) {
  __m512 score, slack;
  const __mmask16 passes = passing(facts, sums, probe, score, slack) & mask;
  if (!passes) return;
  Candidates& found = probe.found;
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i rows = _mm512_add_epi32(lanes, _mm512_set1_epi32(static_cast<int>(number * kRows)));
  _mm512_mask_compressstoreu_ps(found.lower + found.used, passes, _mm512_sub_ps(score, slack));
  _mm512_mask_compressstoreu_ps(found.upper + found.used, passes, _mm512_add_ps(score, slack));
  _mm512_mask_compressstoreu_epi32(found.rows + found.used, passes, rows);
  found.used += static_cast<size_t>(__builtin_popcount(passes));
}

static inline __m512i four(const int8_t* codes) {
  int32_t word;
  __builtin_memcpy(&word, codes, sizeof word);
  return _mm512_set1_epi32(word);
}

template <size_t Queries>
static inline void block_for(const uint8_t* block, size_t groups, __mmask16 mask, size_t number, Probe* probes) {
  __m512i sums[Queries];
  for (size_t at = 0; at < Queries; ++at) sums[at] = _mm512_setzero_si512();
  for (size_t group = 0; group < groups; ++group) {
    const __m512i codes = _mm512_loadu_si512(block + group * 64);
    for (size_t at = 0; at < Queries; ++at) {
      sums[at] = _mm512_dpbusd_epi32(sums[at], codes, four(probes[at].codes + group * kGroup));
    }
  }
  for (size_t at = 0; at < Queries; ++at) keep(block + groups * 64, sums[at], mask, number, probes[at]);
}

static inline void scan_block(const uint8_t* block, size_t groups, Mask mask, size_t number, Probe* probes,
                              size_t count) {
  size_t at = 0;
  for (; at + 8 <= count; at += 8) block_for<8>(block, groups, mask, number, probes + at);
  for (; at + 4 <= count; at += 4) block_for<4>(block, groups, mask, number, probes + at);
  for (; at < count; ++at) block_for<1>(block, groups, mask, number, probes + at);
}

static float dot(const float* one, const float* other, size_t dimension) {
  __m512 sum = _mm512_setzero_ps();
  size_t at = 0;
  for (; at + 16 <= dimension; at += 16) {
    sum = _mm512_fmadd_ps(_mm512_loadu_ps(one + at), _mm512_loadu_ps(other + at), sum);
  }
  if (at < dimension) {
    const __mmask16 rest = static_cast<__mmask16>((1u << (dimension - at)) - 1);
    sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(rest, one + at), _mm512_maskz_loadu_ps(rest, other + at), sum);
  }
  float lanes[16];
  _mm512_storeu_ps(lanes, sum);
  for (size_t width = 8; width; width /= 2) {
    for (size_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
  }
  return lanes[0];
}

#include "course.h"
