#pragma once

#include <cstdint>
#include <utility>

#include "kernels/tensor.h"

namespace trireme {

/// A bump arena for activations: one buffer taken at the start, so that nothing is allocated inside a step.
/// Tensors are valid until the mark they were taken after is released.
class Workspace {
 public:
  static constexpr int64_t kAlignBytes = 64;

  /// `activation_dtype`: of what is taken where no other dtype is named.
  Workspace(Buffer memory, DType activation_dtype)
      : memory_(std::move(memory)), activation_dtype_(activation_dtype) {}

  /// A [rows, cols] tensor, 64-byte aligned, contents undefined. Aborts when the arena is too small.
  Tensor take(int64_t rows, int64_t cols) { return take(rows, cols, activation_dtype_); }
  Tensor take(int64_t rows, int64_t cols, DType dtype) {
    const Tensor tensor(static_cast<char*>(memory_.data()) + used_, dtype, rows, cols);
    used_ += (static_cast<int64_t>(tensor.bytes()) + kAlignBytes - 1) / kAlignBytes * kAlignBytes;
    CHECK_LE(static_cast<size_t>(used_), memory_.bytes());
    return tensor;
  }
  int64_t capacity_bytes() const { return static_cast<int64_t>(memory_.bytes()); }
  int64_t mark() const { return used_; }
  void release(int64_t mark) { used_ = mark; }

 private:
  Buffer memory_;
  DType activation_dtype_;
  int64_t used_ = 0;  // bytes
};

/// Gives back, at the end of a scope, what was taken in it.
class WorkspaceScope {
 public:
  explicit WorkspaceScope(Workspace& workspace) : workspace_(workspace), mark_(workspace.mark()) {}
  ~WorkspaceScope() { workspace_.release(mark_); }
  WorkspaceScope(const WorkspaceScope&) = delete;
  WorkspaceScope& operator=(const WorkspaceScope&) = delete;

 private:
  Workspace& workspace_;
  int64_t mark_;
};

}  // namespace trireme
