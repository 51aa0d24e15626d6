#include "proto/support/job_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme::rpc {
namespace {

/// Wide layers and little else, so that activations count.
v1::JoinJobRequest wide_model(int64_t memory_bytes) {
  v1::JoinJobRequest request;
  request.set_job_id("job");
  v1::ModelInfo& model = *request.mutable_model();
  model.set_name("wide");
  model.set_hidden_size(1024);
  model.set_intermediate_size(65536);
  model.set_num_layers(1);
  model.set_num_heads(8);
  model.set_num_kv_heads(8);
  model.set_head_dim(128);
  model.set_vocab_size(256);
  model.set_weight_dtype_bytes(2);
  model.set_kv_dtype_bytes(2);
  model.set_activation_dtype_bytes(2);
  v1::RankInfo& rank = *request.add_ranks();
  rank.set_host("a");
  rank.set_device("NVIDIA H200");
  rank.set_memory_bytes(memory_bytes);
  return request;
}

RankBytes bytes_of(const v1::ModelInfo& model) {
  const ModelShape shape = model_shape(model);
  return rank_bytes(shape, *layout_tensor_parallel(shape, 1), 0, 512, 64);
}

TEST(JobLayoutTest, ActivationsAreCountedInTheDeviceDtype) {
  v1::ModelInfo model = wide_model(0).model();
  const int64_t logits = int64_t{4} * 64 * 256, narrow = bytes_of(model).activations;
  EXPECT_EQ(narrow, 2 * (512 * (2 * 1024 + 3 * 65536) + 64 * 1024) + logits);
  model.set_activation_dtype_bytes(4);
  EXPECT_EQ(bytes_of(model).activations, 2 * (narrow - logits) + logits);
  model.clear_activation_dtype_bytes();
  EXPECT_EQ(bytes_of(model).activations, 2 * (narrow - logits) + logits) << "f32 where nothing is told";
}

TEST(JobLayoutTest, AModelThatFitsWithNarrowActivationsIsPlanned) {
  const RankBytes bytes = bytes_of(wide_model(0).model());
  const int64_t needed = bytes.weights + bytes.beside_weights() + 512 * bytes.kv_per_token;
  v1::JoinJobRequest request = wide_model(needed);
  EXPECT_TRUE(plan_layout(request, 1).ok()) << plan_layout(request, 1).status();
  request.mutable_model()->set_activation_dtype_bytes(4);
  EXPECT_EQ(plan_layout(request, 1).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_FALSE(plan_layout(wide_model(needed - 1), 1).ok());
}

}  // namespace
}  // namespace trireme::rpc
