#pragma once
// Tensor: a view that owns nothing. Buffer: memory of a backend, freed with it.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "kernels/check.h"
#include "kernels/dtype.h"

namespace trireme {

/// A matrix of `rows` x `cols` elements in a backend's memory; a vector has one row.
/// The elements of a row are contiguous, rows are `row_stride` elements apart, so a slice of columns is a
/// Tensor too.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;

  Tensor() = default;
  Tensor(void* data_in, DType dtype_in, int64_t rows_in, int64_t cols_in)
      : data(data_in), dtype(dtype_in), rows(rows_in), cols(cols_in), row_stride(cols_in) {}
  Tensor(void* data_in, DType dtype_in, int64_t rows_in, int64_t cols_in, int64_t row_stride_in)
      : data(data_in), dtype(dtype_in), rows(rows_in), cols(cols_in), row_stride(row_stride_in) {}

  int64_t size() const { return rows * cols; }
  size_t bytes() const { return static_cast<size_t>(size()) * dtype_bytes(dtype); }
  bool contiguous() const { return row_stride == cols || rows <= 1; }

  /// Columns [begin, begin + count) of every row.
  Tensor slice_cols(int64_t begin, int64_t count) const {
    CHECK_GE(begin, 0);
    CHECK_LE(begin + count, cols);
    return {static_cast<char*>(data) + static_cast<size_t>(begin) * dtype_bytes(dtype), dtype, rows, count,
            row_stride};
  }
  /// Rows [begin, begin + count).
  Tensor slice_rows(int64_t begin, int64_t count) const {
    CHECK_GE(begin, 0);
    CHECK_LE(begin + count, rows);
    return {static_cast<char*>(data) + static_cast<size_t>(begin * row_stride) * dtype_bytes(dtype), dtype,
            count, cols, row_stride};
  }
  /// Only for memory the host can read. Does not check the dtype against T.
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

/// Owns memory of a backend. Movable. The backend must outlive it.
class Buffer {
 public:
  Buffer() = default;
  Buffer(void* data, size_t bytes, std::function<void(void*, size_t)> release)
      : data_(data), bytes_(bytes), release_(std::move(release)) {}
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer old(std::move(*this));
    swap(other);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    if (data_ != nullptr) release_(data_, bytes_);
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  void swap(Buffer& other) {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(release_, other.release_);
  }
  void* data_ = nullptr;
  size_t bytes_ = 0;
  std::function<void(void*, size_t)> release_;
};

}  // namespace trireme
