// One rank of a tensor-parallel group with nobody around it: communication is replaced by nothing, so results
// are wrong and times are those of the shard alone.

#include <cstring>

#include "engine/parallel/process_group.h"

namespace trireme {
namespace {

class IsolatedProcessGroup final : public ProcessGroup {
 public:
  IsolatedProcessGroup(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override { return "isolated"; }
  void all_reduce_sum(const Tensor&) override {}
  void gather_cols(const Tensor& part, const Tensor& whole) override {
    if (rank_ != 0) return;
    CHECK_EQ(whole.cols, part.cols * size_);
    for (int64_t row = 0; row < part.rows; ++row) {
      std::memcpy(whole.as<float>() + row * whole.row_stride, part.as<float>() + row * part.row_stride,
                  static_cast<size_t>(part.cols) * sizeof(float));
    }
  }
  void broadcast(const Tensor&) override {}

 private:
  int rank_, size_;
};

}  // namespace

std::unique_ptr<ProcessGroup> create_isolated_process_group(int rank, int size) {
  return std::make_unique<IsolatedProcessGroup>(rank, size);
}

}  // namespace trireme
