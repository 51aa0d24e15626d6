#pragma once
// What a model is to the runner. A model says what is computed, in order; it never sees a rank, a device or a
// stream.

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/config.h"
#include "engine/layers/forward_context.h"
#include "engine/layers/parameter.h"
#include "engine/layers/shard.h"

namespace trireme {

class CausalLm {
 public:
  virtual ~CausalLm() = default;
  /// Everything that is read from the checkpoint. The pointers stay valid as long as the model.
  virtual std::vector<Parameter*> parameters() = 0;
  /// The residual stream after the last layer, before the final norm: out, f32 [num_tokens, hidden_size].
  /// ids: i32 [num_tokens]. Reads and writes the cache.
  virtual void forward(ForwardContext& context, const Tensor& ids, const Tensor& out) const = 0;
  /// This rank's part of the logits of some rows of that stream. rows: [num_rows, hidden_size], changed in
  /// place by the final norm; out: [num_rows, vocab_per_rank].
  virtual void logits(ForwardContext& context, const Tensor& rows, const Tensor& out) const = 0;
};

/// The model of config.architecture, cut as `shard` says, its parameters not yet filled. `max_context_len`
/// matters to rotary scaling of kind "dynamic". UNIMPLEMENTED naming the architecture and the known ones.
absl::StatusOr<std::unique_ptr<CausalLm>> create_causal_lm(const ModelConfig& config, const Shard& shard,
                                                           Backend& backend, int max_context_len);

/// The shape the planner works with.
ModelShape model_shape(const ModelConfig& config, const std::string& name, DType weight_dtype,
                       DType kv_dtype);

}  // namespace trireme
