// One set of kernels for each instruction set that this compiler can write for; `best_kernels` chooses at run time.
#include "kernels.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <arm_neon.h>
#include <sys/auxv.h>
#endif

namespace headrace {

namespace portable {
static inline void dots(const uint8_t* block, size_t groups, const int8_t* codes, int32_t* sums) {
  for (size_t row = 0; row < kRows; ++row) sums[row] = 0;
  for (size_t group = 0; group < groups; ++group) {
    const uint8_t* theirs = block + group * kRows * kGroup;
    const int8_t* ours = codes + group * kGroup;
    for (size_t row = 0; row < kRows; ++row) {
      for (size_t at = 0; at < kGroup; ++at) sums[row] += theirs[row * kGroup + at] * ours[at];
    }
  }
}
#define DOTS dots
#include "generic.h"
#undef DOTS
}  // namespace portable

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace avx2 {
// products as pairs of 16 bits: with bytes, pairs of products would be cut at 32,767
static inline __m256i half(const uint8_t* codes, __m256i ours, __m256i* sums) {
  const __m256i theirs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  const __m256i zero = _mm256_setzero_si256();
  sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(_mm256_unpacklo_epi8(theirs, zero), ours));
  sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(_mm256_unpackhi_epi8(theirs, zero), ours));
  return theirs;
}
static inline void dots(const uint8_t* block, size_t groups, const int8_t* codes, int32_t* sums) {
  __m256i parts[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  for (size_t group = 0; group < groups; ++group) {
    int32_t word;
    __builtin_memcpy(&word, codes + group * kGroup, sizeof word);
    const __m256i ours = _mm256_cvtepi8_epi16(_mm_set1_epi32(word));
    half(block + group * 64, ours, parts);
    half(block + group * 64 + 32, ours, parts + 2);
  }
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums), _mm256_hadd_epi32(parts[0], parts[1]));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(sums + 8), _mm256_hadd_epi32(parts[2], parts[3]));
}
#define DOTS dots
#include "generic.h"
#undef DOTS
}  // namespace avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vnni")
#endif
namespace avx512 {
#include "avx512.h"
}  // namespace avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#elif defined(__aarch64__) && defined(__linux__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("+dotprod")
#endif
namespace neon {
static inline void dots(const uint8_t* block, size_t groups, const int8_t* codes, int32_t* sums) {
  int32x4_t parts[4] = {vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0), vdupq_n_s32(0)};
  int32_t sum = 0;
  for (size_t group = 0; group < groups; ++group) {
    int32_t word;
    __builtin_memcpy(&word, codes + group * kGroup, sizeof word);
    const int8x16_t ours = vreinterpretq_s8_s32(vdupq_n_s32(word));
    for (size_t at = 0; at < kGroup; ++at) sum += codes[group * kGroup + at];
    for (size_t part = 0; part < 4; ++part) {
      const uint8x16_t theirs = vld1q_u8(block + group * 64 + part * 16);
      const int8x16_t centred = vreinterpretq_s8_u8(veorq_u8(theirs, vdupq_n_u8(0x80)));
      parts[part] = vdotq_s32(parts[part], centred, ours);
    }
  }
  for (size_t part = 0; part < 4; ++part) vst1q_s32(sums + part * 4, vaddq_s32(parts[part], vdupq_n_s32(128 * sum)));
}
#define DOTS dots
#include "generic.h"
#undef DOTS
}  // namespace neon
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif

namespace {
#define KERNELS(name, space) {name, space::scan, space::filter, space::dot}
constexpr Kernels kPortable = KERNELS("portable", portable);
#if defined(__x86_64__)
constexpr Kernels kAvx2 = KERNELS("avx2", avx2);
constexpr Kernels kAvx512 = KERNELS("avx512-vnni", avx512);
#elif defined(__aarch64__) && defined(__linux__)
constexpr Kernels kNeon = KERNELS("neon-dotprod", neon);
#endif
}  // namespace

size_t known_kernels(const Kernels** found) {
  size_t count = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
  if (has_avx512) found[count++] = &kAvx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found[count++] = &kAvx2;
#elif defined(__aarch64__) && defined(__linux__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) found[count++] = &kNeon;
#endif
  found[count++] = &kPortable;
  return count;
}

}  // namespace headrace
