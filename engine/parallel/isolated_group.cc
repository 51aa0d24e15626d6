// One rank of a tensor-parallel group with nobody around it: communication is replaced by nothing, so results
// are wrong and times are those of the shard alone.

#include "engine/parallel/process_group.h"

namespace trireme {
namespace {

class IsolatedProcessGroup final : public ProcessGroup {
 public:
  IsolatedProcessGroup(int rank, int size, Backend& backend) : rank_(rank), size_(size), backend_(backend) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  std::string name() const override { return "isolated"; }
  bool can_be_captured() const override { return true; }
  void all_reduce_sum(const Tensor&) override {}
  void gather_cols(const Tensor& part, const Tensor& whole) override {
    if (rank_ != 0) return;
    CHECK_EQ(whole.cols, part.cols * size_);
    backend_.copy(part, whole.slice_cols(0, part.cols));
  }
  void broadcast(const Tensor&) override {}
  std::string all_reduce_algorithm(int64_t) const override { return "none"; }

 private:
  int rank_, size_;
  Backend& backend_;
};

}  // namespace

std::unique_ptr<ProcessGroup> create_isolated_process_group(int rank, int size, Backend& backend) {
  return std::make_unique<IsolatedProcessGroup>(rank, size, backend);
}

}  // namespace trireme
