// `headrace.index._scan`: the scan for Python, over memory that NumPy owns. Releases the interpreter lock.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <exception>
#include <string>

#include "kernels.hpp"
#include "places.hpp"
#include "search.hpp"

namespace {

using headrace::Kernels;

// A contiguous buffer, held while this lives.
class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (held_) PyBuffer_Release(&view_);
  }
  bool take(PyObject* object, bool is_written = false) {
    const int flags = PyBUF_C_CONTIGUOUS | (is_written ? PyBUF_WRITABLE : 0);
    held_ = PyObject_GetBuffer(object, &view_, flags) == 0;
    return held_;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(view_.buf);
  }
  size_t bytes() const { return static_cast<size_t>(view_.len); }

 private:
  Py_buffer view_;
  bool held_ = false;
};

bool check(bool is_right, const char* reason) {
  if (!is_right) PyErr_SetString(PyExc_ValueError, reason);
  return is_right;
}

const Kernels* kernels_called(const char* name) {
  const Kernels* known[headrace::kMostKernels];
  const size_t count = headrace::known_kernels(known);
  for (size_t at = 0; at < count; ++at) {
    if (std::string(known[at]->name) == name) return known[at];
  }
  PyErr_Format(PyExc_ValueError, "this processor has no kernels called %s", name);
  return nullptr;
}

PyObject* kernels(PyObject*, PyObject*) {
  const Kernels* known[headrace::kMostKernels];
  const size_t count = headrace::known_kernels(known);
  PyObject* names = PyTuple_New(static_cast<Py_ssize_t>(count));
  for (size_t at = 0; names != nullptr && at < count; ++at) {
    PyTuple_SET_ITEM(names, static_cast<Py_ssize_t>(at), PyUnicode_FromString(known[at]->name));
  }
  return names;
}

PyObject* block_bytes(PyObject*, PyObject* argument) {
  const size_t dimension = PyLong_AsSize_t(argument);
  if (PyErr_Occurred()) return nullptr;
  return PyLong_FromSize_t(headrace::block_bytes(dimension));
}

PyObject* write(PyObject*, PyObject* arguments) {
  PyObject *codes_object, *rows_object, *vectors_object;
  Py_ssize_t dimension;
  if (!PyArg_ParseTuple(arguments, "OOOn", &codes_object, &rows_object, &vectors_object, &dimension)) return nullptr;
  Buffer codes, rows, vectors;
  if (!codes.take(codes_object, true) || !rows.take(rows_object) || !vectors.take(vectors_object)) return nullptr;
  if (!check(dimension > 0, "a vector has at least one dimension")) return nullptr;
  const size_t width = static_cast<size_t>(dimension), count = rows.bytes() / sizeof(int64_t);
  const size_t room = codes.bytes() / headrace::block_bytes(width) * headrace::kRows;
  if (!check(vectors.bytes() == count * width * sizeof(float), "one vector a row is needed")) return nullptr;
  const int64_t* places = rows.as<int64_t>();
  for (size_t at = 0; at < count; ++at) {
    if (!check(places[at] >= 0 && static_cast<size_t>(places[at]) < room, "a row is beyond the memory")) return nullptr;
  }
  Py_BEGIN_ALLOW_THREADS;
  for (size_t at = 0; at < count; ++at) {
    headrace::write_row(codes.as<uint8_t>(), static_cast<size_t>(places[at]), vectors.as<float>() + at * width, width);
  }
  Py_END_ALLOW_THREADS;
  Py_RETURN_NONE;
}

PyObject* search(PyObject*, PyObject* arguments) {
  const char* name;
  PyObject *codes_object, *vectors_object, *ordinals_object, *live_object, *allow_object, *queries_object;
  PyObject *found_object, *scores_object, *counts_object, *centres_object = Py_None, *starts_object = Py_None, *numbers_object = Py_None;
  Py_ssize_t dimension, k, probes = 0;
  if (!PyArg_ParseTuple(arguments, "sOOOOOOnnOOO|OOOn", &name, &codes_object, &vectors_object, &ordinals_object,
                        &live_object, &allow_object, &queries_object, &dimension, &k, &found_object, &scores_object,
                        &counts_object, &centres_object, &starts_object, &numbers_object, &probes)) {
    return nullptr;
  }
  const Kernels* chosen = kernels_called(name);
  Buffer codes, vectors, ordinals, live, allow, queries, found, scores, counts;
  if (chosen == nullptr || !codes.take(codes_object) || !vectors.take(vectors_object) ||
      !ordinals.take(ordinals_object) || !live.take(live_object) || !queries.take(queries_object) ||
      !found.take(found_object, true) || !scores.take(scores_object, true) || !counts.take(counts_object, true)) {
    return nullptr;
  }
  const bool is_filtered = allow_object != Py_None;
  if (is_filtered && !allow.take(allow_object)) return nullptr;
  if (!check(dimension > 0 && k > 0, "dimension and k are at least 1")) return nullptr;
  const size_t width = static_cast<size_t>(dimension), wanted = static_cast<size_t>(k);
  const size_t rows = ordinals.bytes() / sizeof(uint32_t), count = counts.bytes() / sizeof(uint32_t);
  const size_t blocks = (rows + headrace::kRows - 1) / headrace::kRows;
  const bool is_whole = codes.bytes() >= blocks * headrace::block_bytes(width) &&
                        vectors.bytes() >= rows * width * sizeof(float) && live.bytes() == (rows + 7) / 8;
  if (!check(is_whole, "codes, vectors and live bits do not fit the rows")) return nullptr;
  const bool fits = queries.bytes() == count * width * sizeof(float) &&
                    found.bytes() == count * wanted * sizeof(uint32_t) &&
                    scores.bytes() == count * wanted * sizeof(float);
  if (!check(fits, "queries and results do not fit each other")) return nullptr;
  const headrace::Table table = {codes.as<uint8_t>(),
                                 vectors.as<float>(),
                                 ordinals.as<uint32_t>(),
                                 rows,
                                 width,
                                 live.as<uint8_t>(),
                                 is_filtered ? allow.as<uint8_t>() : nullptr,
                                 is_filtered ? allow.bytes() : 0};
  Buffer centres, starts, numbers;
  const bool has_cells = centres_object != Py_None;
  headrace::Cells probed = {};
  if (has_cells) {
    if (!centres.take(centres_object) || !starts.take(starts_object) || !numbers.take(numbers_object)) return nullptr;
    probed = {centres.as<float>(), centres.bytes() / (width * sizeof(float)), starts.as<int32_t>(),
              numbers.as<int32_t>(), static_cast<size_t>(probes)};
    const size_t places = probed.count + headrace::kBeforeCells, listed = numbers.bytes() / sizeof(int32_t);
    const bool is_known = probes > 0 && starts.bytes() == (places + 1) * sizeof(int32_t) && probed.starts[0] == 0 &&
                          std::is_sorted(probed.starts, probed.starts + places + 1) &&
                          static_cast<size_t>(probed.starts[places]) <= listed;
    if (!check(is_known, "the lists of blocks do not fit the cells")) return nullptr;
  }
  const headrace::Answers answers = {found.as<uint32_t>(), scores.as<float>(), counts.as<uint32_t>()};
  std::string fault;
  Py_BEGIN_ALLOW_THREADS;
  try {
    headrace::search(*chosen, table, has_cells ? &probed : nullptr, queries.as<float>(), count, wanted, answers);
  } catch (const std::exception& error) {
    fault = error.what();
  }
  Py_END_ALLOW_THREADS;
  if (!fault.empty()) return PyErr_Format(PyExc_MemoryError, "search: %s", fault.c_str());
  Py_RETURN_NONE;
}

// The blocks and cells of a segment, held while this lives.
class HeldPlaces {
 public:
  bool take(PyObject* blocks, PyObject* cells) {
    return blocks_.take(blocks, true) && cells_.take(cells, true) &&
           check(cells_.bytes() >= headrace::kBeforeCells * sizeof(headrace::Cell), "the lists of free blocks lack");
  }
  headrace::Places places() const {
    return {blocks_.as<headrace::Block>(), blocks_.bytes() / sizeof(headrace::Block), cells_.as<headrace::Cell>(),
            cells_.bytes() / sizeof(headrace::Cell)};
  }

 private:
  Buffer blocks_, cells_;
};

bool are_within(const Buffer& numbers, int64_t low, size_t high, const char* reason) {
  const int64_t* given = numbers.as<int64_t>();
  for (size_t at = 0; at < numbers.bytes() / sizeof(int64_t); ++at) {
    if (!check(given[at] >= low && given[at] < static_cast<int64_t>(high), reason)) return false;
  }
  return true;
}

PyObject* link_blocks(PyObject*, PyObject* arguments) {
  PyObject *blocks, *cells;
  HeldPlaces held;
  if (!PyArg_ParseTuple(arguments, "OO", &blocks, &cells) || !held.take(blocks, cells)) return nullptr;
  const headrace::Places places = held.places();
  for (size_t at = 0; at < places.block_count; ++at) {
    const int64_t place = places.blocks[at].cell + static_cast<int64_t>(headrace::kBeforeCells);
    const bool is_known = place >= 0 && place < static_cast<int64_t>(places.cell_count);
    if (!check(is_known, "a block is in no cell that there is")) return nullptr;
  }
  headrace::link(places);
  Py_RETURN_NONE;
}

PyObject* numbers_by_cell(PyObject*, PyObject* arguments) {
  PyObject *blocks, *cells, *starts_object, *numbers_object;
  if (!PyArg_ParseTuple(arguments, "OOOO", &blocks, &cells, &starts_object, &numbers_object)) return nullptr;
  HeldPlaces held;
  Buffer starts, numbers;
  if (!held.take(blocks, cells) || !starts.take(starts_object, true) || !numbers.take(numbers_object, true)) {
    return nullptr;
  }
  const headrace::Places places = held.places();
  const bool fits = starts.bytes() == (places.cell_count + 1) * sizeof(int32_t) &&
                    numbers.bytes() >= places.block_count * sizeof(int32_t);
  if (!check(fits, "starts and numbers do not fit the blocks and cells")) return nullptr;
  headrace::numbers_by_cell(places, starts.as<int32_t>(), numbers.as<int32_t>());
  Py_RETURN_NONE;
}

PyObject* take_rows(PyObject*, PyObject* arguments) {
  PyObject *blocks, *cells, *wanted_object, *rows_object;
  if (!PyArg_ParseTuple(arguments, "OOOO", &blocks, &cells, &wanted_object, &rows_object)) return nullptr;
  HeldPlaces held;
  Buffer wanted, rows;
  if (!held.take(blocks, cells) || !wanted.take(wanted_object) || !rows.take(rows_object, true)) return nullptr;
  const headrace::Places places = held.places();
  if (!check(wanted.bytes() == rows.bytes(), "one row a vector is needed") ||
      !are_within(wanted, headrace::kInNoCell, places.cell_count - headrace::kBeforeCells, "there is no such cell")) {
    return nullptr;
  }
  const size_t count = wanted.bytes() / sizeof(int64_t);
  return PyLong_FromSize_t(headrace::take(places, wanted.as<int64_t>(), count, rows.as<int64_t>()));
}

PyObject* put_rows(PyObject*, PyObject* arguments) {
  PyObject *blocks, *cells, *rows_object;
  if (!PyArg_ParseTuple(arguments, "OOO", &blocks, &cells, &rows_object)) return nullptr;
  HeldPlaces held;
  Buffer rows;
  if (!held.take(blocks, cells) || !rows.take(rows_object)) return nullptr;
  const headrace::Places places = held.places();
  if (!are_within(rows, 0, places.block_count * headrace::kRows, "a row is beyond the blocks")) return nullptr;
  headrace::put(places, rows.as<int64_t>(), rows.bytes() / sizeof(int64_t));
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"kernels", kernels, METH_NOARGS, "kernels() -> names of the kernels that this processor can run, best first"},
    {"block_bytes", block_bytes, METH_O, "block_bytes(dimension) -> bytes of a block of 16 rows"},
    {"write", write, METH_VARARGS, "write(codes, rows, vectors, dimension): codes vectors into their rows"},
    {"search", search, METH_VARARGS,
     "search(kernels, codes, vectors, ordinals, live, allow, queries, dimension, k, found, scores, counts, "
     "centres=None, starts=None, numbers=None, probes=0)"},
    {"link_blocks", link_blocks, METH_VARARGS, "link_blocks(blocks, cells): lists each cell's blocks with free rows"},
    {"numbers_by_cell", numbers_by_cell, METH_VARARGS,
     "numbers_by_cell(blocks, cells, starts, numbers): numbers of the blocks of each cell, one after the other"},
    {"take_rows", take_rows, METH_VARARGS, "take_rows(blocks, cells, wanted, rows) -> how many found a row"},
    {"put_rows", put_rows, METH_VARARGS, "put_rows(blocks, cells, rows): takes rows back"},
    {nullptr, nullptr, 0, nullptr}};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_scan", "Exact nearest vectors through an int8 copy.", -1, methods,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__scan() { return PyModule_Create(&module); }
