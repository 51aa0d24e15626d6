#include "proto/support/job_layout.h"

#include <vector>

#include "absl/strings/str_cat.h"

namespace trireme::rpc {

ModelShape model_shape(const v1::ModelInfo& model) {
  ModelShape shape;
  shape.name = model.name();
  shape.hidden_size = model.hidden_size();
  shape.intermediate_size = model.intermediate_size();
  shape.num_layers = model.num_layers();
  shape.num_heads = model.num_heads();
  shape.num_kv_heads = model.num_kv_heads();
  shape.head_dim = model.head_dim();
  shape.vocab_size = model.vocab_size();
  shape.tie_word_embeddings = model.tie_word_embeddings();
  shape.weight_dtype_bytes = model.weight_dtype_bytes();
  shape.kv_dtype_bytes = model.kv_dtype_bytes();
  if (model.activation_dtype_bytes() > 0) shape.activation_dtype_bytes = model.activation_dtype_bytes();
  return shape;
}

absl::StatusOr<v1::JoinJobResponse> plan_layout(const v1::JoinJobRequest& request, int tensor_parallel_size) {
  std::vector<RankInventory> ranks;
  for (const v1::RankInfo& rank : request.ranks())
    ranks.push_back({rank.host(), rank.device(), rank.memory_bytes()});
  const auto plan = plan_shards(model_shape(request.model()), ranks, tensor_parallel_size);
  if (!plan.ok()) return plan.status();
  v1::JoinJobResponse response;
  response.set_tensor_parallel_size(plan->tp_size);
  for (size_t i = 0; i < plan->replicas.size(); ++i) {
    v1::ReplicaPlan* replica = response.add_replicas();
    replica->set_replica_id(absl::StrCat(request.job_id(), "-", i));
    replica->mutable_ranks()->Assign(plan->replicas[i].begin(), plan->replicas[i].end());
  }
  return response;
}

}  // namespace trireme::rpc
