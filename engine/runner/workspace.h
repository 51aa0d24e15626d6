#pragma once

#include <cstdint>
#include <utility>

#include "kernels/tensor.h"

namespace trireme {

/// A bump arena for activations: one buffer taken at the start, so that nothing is allocated inside a step.
/// Tensors are valid until the mark they were taken after is released.
class Workspace {
 public:
  static constexpr int64_t kAlignElements = 16;  // 64 bytes

  explicit Workspace(Buffer memory) : memory_(std::move(memory)) {}

  /// An f32 [rows, cols] tensor, 64-byte aligned, contents undefined. Aborts when the arena is too small.
  Tensor take(int64_t rows, int64_t cols) {
    const int64_t begin = used_;
    used_ += (rows * cols + kAlignElements - 1) / kAlignElements * kAlignElements;
    CHECK_LE(static_cast<size_t>(used_) * sizeof(float), memory_.bytes());
    return {static_cast<float*>(memory_.data()) + begin, DType::f32, rows, cols};
  }
  int64_t capacity_bytes() const { return static_cast<int64_t>(memory_.bytes()); }
  int64_t mark() const { return used_; }
  void release(int64_t mark) { used_ = mark; }

 private:
  Buffer memory_;
  int64_t used_ = 0;
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
