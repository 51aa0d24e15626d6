#pragma once
// The Llama family: pre-norm decoder layers of grouped-query attention and a gated MLP. Llama 2 and 3,
// Mistral, Qwen2 and Qwen3 (dense) are this one computation; what differs (biases, head norms, windows) is
// data in ModelConfig. Sources: arXiv:2307.09288, arXiv:2407.21783, arXiv:2310.06825, arXiv:2407.10671,
// arXiv:2505.09388.

#include <memory>
#include <vector>

#include "engine/layers/attention.h"
#include "engine/layers/embedding.h"
#include "engine/layers/gated_mlp.h"
#include "engine/layers/rms_norm.h"
#include "engine/models/causal_lm.h"

namespace trireme {

class Llama final : public CausalLm {
 public:
  /// `inverse_frequencies`: f32 [head_dim / 2] in the backend's memory, kept by the model.
  Llama(const ModelConfig& config, const Shard& shard, Buffer inverse_frequencies, float attention_factor);

  std::vector<Parameter*> parameters() override;
  void forward(ForwardContext& context, const Tensor& ids, const Tensor& out) const override;
  void logits(ForwardContext& context, const Tensor& rows, const Tensor& out) const override;

 private:
  struct Layer {
    RmsNorm input_norm;
    Attention attention;
    RmsNorm post_attention_norm;
    GatedMlp mlp;
  };

  Buffer inverse_frequencies_;
  VocabParallelMatrix embedding_;
  std::vector<std::unique_ptr<Layer>> layers_;  // parameters() points into them
  RmsNorm final_norm_;
  std::unique_ptr<VocabParallelMatrix> head_;  // null: tied to the embedding
};

}  // namespace trireme
