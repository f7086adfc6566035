// Which row a vector goes to: one of its cell's blocks.
#include "places.hpp"

#include <algorithm>
#include <vector>

namespace headrace {
namespace {

constexpr int32_t kNone = -1;

size_t place_of(int32_t cell) { return static_cast<size_t>(cell + static_cast<int32_t>(kBeforeCells)); }

void enter(const Places& places, int32_t number) {
  Block& block = places.blocks[number];
  Cell& cell = places.cells[place_of(block.cell)];
  block.before = kNone;
  block.after = cell.first;
  if (cell.first != kNone) places.blocks[cell.first].before = number;
  cell.first = number;
}

void leave(const Places& places, int32_t number) {
  const Block& block = places.blocks[number];
  if (block.after != kNone) places.blocks[block.after].before = block.before;
  if (block.before != kNone) {
    places.blocks[block.before].after = block.after;
  } else {
    places.cells[place_of(block.cell)].first = block.after;
  }
}

void give(const Places& places, int32_t number, int32_t cell) {
  leave(places, number);
  places.blocks[number].cell = cell;
  enter(places, number);
}

// A block of the cell that has a free row; -1 when there is none and no block is free either.
int32_t open_block(const Places& places, int32_t cell) {
  const int32_t open = places.cells[place_of(cell)].first;
  if (open != kNone) return open;
  const int32_t free = places.cells[place_of(kFree)].first;
  if (free != kNone) give(places, free, cell);
  return free;
}

}  // namespace

void link(const Places& places) {
  for (size_t at = 0; at < places.cell_count; ++at) places.cells[at].first = kNone;
  // the lowest come first
  for (size_t left = places.block_count; left > 0; --left) {
    if (places.blocks[left - 1].free != 0) enter(places, static_cast<int32_t>(left - 1));
  }
}

size_t take(const Places& places, const int64_t* cells, size_t count, int64_t* rows) {
  for (size_t at = 0; at < count; ++at) {
    const int32_t cell = static_cast<int32_t>(cells[at]);
    const int32_t number = open_block(places, cell);
    if (number == kNone) return at;
    Block& block = places.blocks[number];
    size_t lane = 0;
    while ((block.free >> lane & 1) == 0) ++lane;
    block.free &= ~(1 << lane);
    if (block.free == 0) leave(places, number);
    ++places.cells[place_of(cell)].used;
    rows[at] = static_cast<int64_t>(number) * static_cast<int64_t>(kRows) + static_cast<int64_t>(lane);
  }
  return count;
}

void numbers_by_cell(const Places& places, int32_t* starts, int32_t* numbers) {
  std::fill(starts, starts + places.cell_count + 1, 0);
  for (size_t at = 0; at < places.block_count; ++at) {
    if (places.blocks[at].cell != kFree) ++starts[place_of(places.blocks[at].cell) + 1];
  }
  for (size_t place = 0; place < places.cell_count; ++place) starts[place + 1] += starts[place];
  std::vector<int32_t> next(starts, starts + places.cell_count);
  for (size_t at = 0; at < places.block_count; ++at) {
    if (places.blocks[at].cell != kFree) numbers[next[place_of(places.blocks[at].cell)]++] = static_cast<int32_t>(at);
  }
}

void put(const Places& places, const int64_t* rows, size_t count) {
  for (size_t at = 0; at < count; ++at) {
    const int32_t number = static_cast<int32_t>(rows[at] / static_cast<int64_t>(kRows));
    Block& block = places.blocks[number];
    --places.cells[place_of(block.cell)].used;
    if (block.free == 0) enter(places, number);
    block.free |= 1 << (rows[at] % static_cast<int64_t>(kRows));
    if (block.free == kAllFree) give(places, number, kFree);
  }
}

}  // namespace headrace
