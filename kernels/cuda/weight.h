#pragma once
// Weights on the device: row-major as they come, and how many threads bring them there.

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <set>

#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"

namespace trireme::cuda {

class CudaWeight;
using CudaWeights = std::set<const CudaWeight*>;

/// [out_features, in_features], contiguous. As long as it lives it is one of `all`.
class CudaWeight final : public Weight {
 public:
  CudaWeight(int64_t out_features, int64_t in_features, DType dtype, Memory memory, CudaWeights& all)
      : Weight(out_features, in_features, dtype), memory_(std::move(memory)), all_(all) {
    all_.insert(this);
  }
  ~CudaWeight() override { all_.erase(this); }
  size_t bytes() const override { return memory_.bytes(); }
  Tensor tensor() const { return {memory_.data(), dtype(), out_features(), in_features()}; }

 private:
  Memory memory_;
  CudaWeights& all_;
};

/// Moves pieces of host matrices to the device, on a stream of its own. A piece is gathered in pinned memory
/// by the thread that brings it, and copied, or converted by the device, while that thread goes on.
class WeightUploader {
 public:
  explicit WeightUploader(int device) : device_(device) {}

  /// Takes the pinned memory, once; before the first write. RESOURCE_EXHAUSTED.
  absl::Status reserve();
  /// Zeroes that come before what is written later.
  void zero(const Memory& memory);
  /// WeightBuilder::write() into `matrix`. Any number of threads.
  void write(const Tensor& matrix, int64_t row, int64_t num_rows, int64_t col, int64_t num_cols,
             const void* source, int64_t source_stride, DType source_dtype);
  /// WeightBuilder::draw() of all elements of `part`, by the device. Any number of threads.
  void draw(const Tensor& part, const DrawnPlace& place);
  /// Waits until all that was written is there.
  void synchronize() const { stream_.synchronize(); }

 private:
  struct Slot {
    Memory memory;
    Event last_use;
  };
  Slot* take();
  void give_back(Slot* slot);
  const float* upload_quantiles(const NormalQuantiles& quantiles);

  const int device_;
  Stream stream_;
  std::deque<Slot> slots_;
  std::mutex mutex_;  // of free_
  std::condition_variable returned_;
  std::deque<Slot*> free_;      // the one that was used longest ago first
  std::mutex quantiles_mutex_;  // of the two below
  Memory quantiles_;            // on the device
  float deviation_ = 0;         // of these; 0: not there yet
};

class CudaWeightBuilder final : public WeightBuilder {
 public:
  CudaWeightBuilder(std::unique_ptr<CudaWeight> weight, WeightUploader& uploader)
      : weight_(std::move(weight)), uploader_(uploader) {}
  /// What was begun and not finished may still be under way.
  ~CudaWeightBuilder() override;
  void write(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols, const void* source,
             int64_t source_stride, DType source_dtype) override;
  void draw(int64_t row, int64_t num_rows, int64_t col, int64_t num_cols, const DrawnPlace& place) override;
  std::unique_ptr<Weight> finish() override;

 private:
  std::unique_ptr<CudaWeight> weight_;
  WeightUploader& uploader_;
};

/// Copies a contiguous matrix of `source_dtype` that the device can read to `out`, rounded to nearest even.
void convert_rows(cudaStream_t stream, const void* source, DType source_dtype, const Tensor& out);

}  // namespace trireme::cuda
