// The references can tell a wrong computation: each fault planted here moves the logits far beyond the
// tolerance.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "engine/weights/weight_loader.h"
#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"

namespace trireme::testing {
namespace {

/// Rank 1's part of every sum is lost.
class LosesAPartialSum final : public ProcessGroup {
 public:
  explicit LosesAPartialSum(std::unique_ptr<ProcessGroup> group) : group_(std::move(group)) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::string name() const override { return "faulty"; }
  void all_reduce_sum(const Tensor& tensor) override {
    if (rank() == 1) std::memset(tensor.data, 0, tensor.bytes());
    group_->all_reduce_sum(tensor);
  }
  void gather_cols(const Tensor& part, const Tensor& whole) override { group_->gather_cols(part, whole); }
  void broadcast(const Tensor& tensor) override { group_->broadcast(tensor); }

 private:
  std::unique_ptr<ProcessGroup> group_;
};

class FaultTest : public ::testing::TestWithParam<std::string> {
 protected:
  /// How far the logits at the end of the prompt are from the reference's.
  float error(HandLoaded& model) const {
    const auto logits = model.logits(reference_.prompt_ids, {reference_.positions[2]});
    return world().rank() == 0 ? largest_difference(logits, {reference_.logits[2]}) : 1e9f;
  }
  static constexpr float kFar = 0.1f;  // the tolerance is 1e-4 of the largest logit
  Reference reference_ = load_reference(GetParam());
};

TEST_P(FaultTest, WithoutRotaryPositionsTheLogitsAreWrong) {
  EngineConfig config = reference_engine_config(reference_);
  config.model.rope_scaling = {};
  config.model.rope_scaling.kind = RopeScaling::Kind::linear;
  config.model.rope_scaling.factor = 1e12;  // every position looks like the first
  HandLoaded model(config);
  EXPECT_GT(error(model), kFar);
}

/// The slices of a parameter with neighbouring KV heads of k_proj exchanged; empty when it has none.
std::vector<TensorSlice> with_swapped_kv_heads(const Parameter& parameter, int64_t head_dim) {
  std::vector<TensorSlice> slices;
  bool swapped = false;
  for (const TensorSlice& slice : parameter.slices) {
    if (slice.name.find("k_proj.weight") == std::string::npos) {
      slices.push_back(slice);
      continue;
    }
    swapped = true;
    for (int64_t row = 0; row < slice.num_rows; row += head_dim) {
      TensorSlice head = slice;
      head.row = ((slice.row + row) / head_dim ^ 1) * head_dim;
      head.num_rows = head_dim;
      head.to_row = slice.to_row + row;
      slices.push_back(head);
    }
  }
  return swapped ? slices : std::vector<TensorSlice>();
}

TEST_P(FaultTest, WithKvHeadsSwappedTheLogitsAreWrong) {
  const EngineConfig config = reference_engine_config(reference_);
  HandLoaded model(config);
  std::vector<Parameter*> changed;
  for (Parameter* parameter : model.rank().model->parameters()) {
    std::vector<TensorSlice> slices = with_swapped_kv_heads(*parameter, config.model.head_dim);
    if (slices.empty()) continue;
    parameter->slices = std::move(slices);
    parameter->weight.reset();
    changed.push_back(parameter);
  }
  ASSERT_EQ(static_cast<int>(changed.size()), config.model.num_layers);
  auto checkpoint = Checkpoint::open(config.model_dir);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  ASSERT_TRUE(load_parameters(**checkpoint, changed, DType::f32, *model.rank().backend, 1, nullptr).ok());
  EXPECT_GT(error(model), kFar);
}

TEST_P(FaultTest, WithOneRanksPartialSumLostTheLogitsAreWrong) {
  if (world().size() == 1) GTEST_SKIP() << "one rank has no partial sums";
  HandLoaded model(reference_engine_config(reference_));
  model.rank().group = std::make_unique<LosesAPartialSum>(std::move(model.rank().group));
  EXPECT_GT(error(model), kFar);
}

INSTANTIATE_TEST_SUITE_P(All, FaultTest, ::testing::Values("llama_tied", "qwen2", "qwen3"),
                         [](const auto& name) { return name.param; });

}  // namespace
}  // namespace trireme::testing
