#pragma once

#include "layout.hpp"

namespace headrace {

constexpr size_t kMostKernels = 4;

// The kernels that this processor can run, best first; how many. `found` has room for kMostKernels.
size_t known_kernels(const Kernels** found);

}  // namespace headrace
