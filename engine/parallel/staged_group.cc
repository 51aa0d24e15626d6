// Collectives on tensors of a device by way of host memory: for devices that the ranks share, and for
// checking faster ways. The host waits in each of them.

#include <vector>

#include "engine/parallel/process_group.h"

namespace trireme {
namespace {

class StagedProcessGroup final : public ProcessGroup {
 public:
  StagedProcessGroup(std::unique_ptr<ProcessGroup> group, Backend& backend)
      : group_(std::move(group)), backend_(backend) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::string name() const override { return group_->name() + " staged over host memory"; }
  std::string all_reduce_algorithm(int64_t bytes) const override {
    return group_->all_reduce_algorithm(bytes);
  }

  void all_reduce_sum(const Tensor& tensor) override {
    TRIREME_CHECK(tensor.contiguous());
    const Tensor host = on_host(part_, tensor);
    fetch(host, tensor);
    group_->all_reduce_sum(host);
    backend_.copy_to_device(tensor.data, host.data, tensor.bytes());
  }

  void gather_cols(const Tensor& part, const Tensor& whole) override {
    TRIREME_CHECK(part.contiguous());
    const Tensor host_part = on_host(part_, part);
    fetch(host_part, part);
    if (rank() != 0) return group_->gather_cols(host_part, whole);
    const Tensor host_whole = on_host(whole_, whole);
    group_->gather_cols(host_part, host_whole);
    if (whole.contiguous()) return backend_.copy_to_device(whole.data, host_whole.data, host_whole.bytes());
    for (int64_t row = 0; row < whole.rows; ++row) {
      const Tensor from = host_whole.slice_rows(row, 1);
      backend_.copy_to_device(whole.slice_rows(row, 1).data, from.data, from.bytes());
    }
  }

  void broadcast(const Tensor& tensor) override {
    TRIREME_CHECK(tensor.contiguous());
    const Tensor host = on_host(part_, tensor);
    if (rank() == 0) fetch(host, tensor);
    group_->broadcast(host);
    if (rank() != 0) backend_.copy_to_device(tensor.data, host.data, tensor.bytes());
  }

 private:
  /// A contiguous tensor of the same shape in host memory. Grows only: a step whose sizes were seen takes
  /// none.
  static Tensor on_host(std::vector<char>& memory, const Tensor& like) {
    const Tensor wanted(nullptr, like.dtype, like.rows, like.cols);
    if (memory.size() < wanted.bytes()) memory.resize(wanted.bytes());
    return Tensor(memory.data(), like.dtype, like.rows, like.cols);
  }
  void fetch(const Tensor& host, const Tensor& device) {
    backend_.copy_to_host(host.data, device.data, host.bytes());
    backend_.synchronize();
  }

  std::unique_ptr<ProcessGroup> group_;
  Backend& backend_;
  std::vector<char> part_, whole_;
};

}  // namespace

std::unique_ptr<ProcessGroup> create_staged_process_group(std::unique_ptr<ProcessGroup> group,
                                                          Backend& backend) {
  return std::make_unique<StagedProcessGroup>(std::move(group), backend);
}

}  // namespace trireme
