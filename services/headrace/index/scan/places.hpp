#pragma once

#include "layout.hpp"
#include "search.hpp"

namespace headrace {

// A block as whoever writes sees it. Blocks with a free row stand in the list of their cell.
struct Block {
  int32_t cell;
  int32_t free;    // a bit a row
  int32_t before;  // in the list; -1: none
  int32_t after;
};

// A cell: the first of its blocks that has a free row (-1: none), and how many of its rows are taken.
struct Cell {
  int32_t first;
  int32_t used;
};

constexpr int32_t kAllFree = (1 << kRows) - 1;

// Blocks and cells of one segment.
struct Places {
  Block* blocks;
  size_t block_count;
  Cell* cells;
  size_t cell_count;  // those before the first one included
};

// Makes the lists anew: of every block that has a free row.
void link(const Places& places);

// A row in the cell of each vector, until no block is free; how many found one.
size_t take(const Places& places, const int64_t* cells, size_t count, int64_t* rows);

// The numbers of the blocks that are not free, ascending in each cell: those of place p are
// numbers[starts[p], starts[p + 1]).
void numbers_by_cell(const Places& places, int32_t* starts, int32_t* numbers);

// Takes rows back; a block whose rows are all free is free for every cell.
void put(const Places& places, const int64_t* rows, size_t count);

}  // namespace headrace
