"""Exact nearest vectors through an int8 copy (scan/). Every array is contiguous."""

from headrace.index.rows import F32, I32, I64, U8, U32

def kernels() -> tuple[str, ...]:
    """Names of the kernels that this processor can run, best first."""

def block_bytes(dimension: int) -> int:
    """Bytes of a block of 16 rows: their codes, and scale, error and norm of each."""

def write(codes: U8, rows: I64, vectors_ND: F32, dimension: int, /) -> None:
    """Codes vectors into their rows. ValueError: a row is beyond the memory, or the sizes do not fit."""

def search(
    kernels: str,
    codes: U8,
    vectors_ND: F32,
    ordinals_N: U32,
    live: U8,
    allow: U8 | None,
    queries_QD: F32,
    dimension: int,
    k: int,
    found_QK: U32,
    scores_QK: F32,
    counts_Q: U32,
    centres_CD: F32 | None = None,
    starts: I32 | None = None,
    numbers: I32 | None = None,
    probes: int = 0,
    /,
) -> None:
    """Writes the k best of each query, best first, equal scores by ordinal, into the last three arrays.

    `live` has a bit a row, `allow` a bit an ordinal. With centres, a query looks only into the blocks of the `probes`
    cells whose centres score best, and into those in no cell, as `numbers_by_cell` has them. Releases the interpreter
    lock.
    ValueError: sizes do not fit.
    """

def link_blocks(blocks_B4: I32, cells_C2: I32, /) -> None:
    """Lists the blocks that have a free row by their cell.

    A block is its cell, a bit for each free row, and its neighbours in the list; a cell is the first of its blocks, and
    how many of its rows are taken. The first two cells are -2, of blocks in no cell, and -1, of free ones.
    """

def numbers_by_cell(blocks_B4: I32, cells_C2: I32, starts: I32, numbers: I32, /) -> None:
    """Writes the numbers of the blocks in no cell, then of cell 0, 1, …: those of place p from starts[p] on."""

def take_rows(blocks_B4: I32, cells_C2: I32, wanted_N: I64, rows_N: I64, /) -> int:
    """Writes a free row in the cell of each vector into the last array; how many found one before blocks ran out."""

def put_rows(blocks_B4: I32, cells_C2: I32, rows: I64, /) -> None:
    """Takes rows back; a block whose rows are all free is free for every cell."""
