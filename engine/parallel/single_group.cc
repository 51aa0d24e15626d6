// Groups of one: every operation returns at once, so that nobody above asks for the size.

#include <cstring>

#include "engine/parallel/process_group.h"

namespace trireme {
namespace {

class SingleHostGroup final : public HostGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  int local_size() const override { return 1; }
  absl::Status broadcast(std::vector<int32_t>&, int, std::chrono::milliseconds) override {
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<std::string>> gather(const std::string& bytes, int,
                                                  std::chrono::milliseconds) override {
    return std::vector<std::string>{bytes};
  }
  absl::Status barrier(std::chrono::milliseconds) override { return absl::OkStatus(); }
  std::unique_ptr<HostGroup> split(int, int) override { return create_single_host_group(); }
};

class SingleProcessGroup final : public ProcessGroup {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string name() const override { return "single"; }
  bool can_be_captured() const override { return true; }
  void all_reduce_sum(const Tensor&) override {}
  void gather_cols(const Tensor& part, const Tensor& whole) override {
    CHECK_EQ(part.rows, whole.rows);
    CHECK_EQ(part.cols, whole.cols);
    if (part.data == whole.data) return;
    for (int64_t row = 0; row < part.rows; ++row) {
      std::memcpy(whole.as<float>() + row * whole.row_stride, part.as<float>() + row * part.row_stride,
                  static_cast<size_t>(part.cols) * sizeof(float));
    }
  }
  void broadcast(const Tensor&) override {}
  std::string all_reduce_algorithm(int64_t) const override { return "none"; }
};

}  // namespace

std::unique_ptr<HostGroup> create_single_host_group() { return std::make_unique<SingleHostGroup>(); }

std::unique_ptr<ProcessGroup> create_single_process_group() { return std::make_unique<SingleProcessGroup>(); }

}  // namespace trireme
