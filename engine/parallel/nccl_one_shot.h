#pragma once
// Sums of small tensors over the memory that GPUs of one host show each other, beside NCCL. Seen by
// nccl_group.cc only.

#include <cuda_runtime.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/parallel/process_group.h"
#include "kernels/cuda/one_shot_all_reduce.h"

namespace trireme {

class OneShotAllReduce {
 public:
  /// Null where the ranks are not 2, 4 or 8 GPUs of one host that reach each other's memory, or where that
  /// memory gives wrong sums. Otherwise it takes tensors up to the size up to which it was faster than
  /// `other`, as measured now. Collective over `host`, which must outlive it.
  static absl::StatusOr<std::unique_ptr<OneShotAllReduce>> create(
      HostGroup& host, Backend& backend, const std::function<void(const Tensor&)>& other,
      std::chrono::milliseconds deadline);
  ~OneShotAllReduce();
  OneShotAllReduce(const OneShotAllReduce&) = delete;
  OneShotAllReduce& operator=(const OneShotAllReduce&) = delete;

  int64_t limit_bytes() const { return limit_bytes_; }
  bool takes(const Tensor& tensor) const {
    return static_cast<int64_t>(tensor.bytes()) <= limit_bytes_ && cuda::fits_one_shot(ranks_, tensor);
  }
  void all_reduce_sum(const Tensor& tensor) const { cuda::one_shot_all_reduce(stream_, ranks_, tensor); }

 private:
  OneShotAllReduce(HostGroup& host, Backend& backend);
  absl::Status connect(std::chrono::milliseconds deadline);
  absl::Status open(const std::vector<std::string>& handles);
  absl::Status verify(const Tensor& scratch) const;
  absl::Status choose_limit(const Tensor& scratch, const std::function<void(const Tensor&)>& other,
                            std::chrono::milliseconds deadline);

  HostGroup& host_;
  Backend& backend_;
  cudaStream_t stream_;
  cuda::OneShotRanks ranks_;
  int64_t limit_bytes_ = 0;
};

}  // namespace trireme
