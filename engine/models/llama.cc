#include "engine/models/llama.h"

#include "absl/strings/str_cat.h"

namespace trireme {

Llama::Llama(const ModelConfig& config, const Shard& shard, Buffer inverse_frequencies,
             float attention_factor)
    : inverse_frequencies_(std::move(inverse_frequencies)),
      embedding_("model.embed_tokens.weight", shard),
      final_norm_("model.norm", config.hidden_size, config.rms_norm_eps) {
  RopeSpec rope;
  rope.inverse_frequencies = Tensor(inverse_frequencies_.data(), DType::f32, 1, config.head_dim / 2);
  rope.attention_factor = attention_factor;
  rope.rotary_dim = config.head_dim;
  for (int i = 0; i < config.num_layers; ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i);
    AttentionOptions options;
    options.qkv_bias = config.attention_bias;
    options.out_bias = config.attention_out_bias;
    options.qk_norm = config.qk_norm;
    options.norm_eps = config.rms_norm_eps;
    const int window = config.window_of_layer(i);  // counts the token itself
    options.window_left = window > 0 ? window - 1 : -1;
    layers_.push_back(std::make_unique<Layer>(
        Layer{RmsNorm(prefix + ".input_layernorm", config.hidden_size, config.rms_norm_eps),
              Attention(prefix + ".self_attn", i, options, rope, shard),
              RmsNorm(prefix + ".post_attention_layernorm", config.hidden_size, config.rms_norm_eps),
              GatedMlp(prefix + ".mlp", config.mlp_bias, shard)}));
  }
  if (!config.tie_word_embeddings) head_ = std::make_unique<VocabParallelMatrix>("lm_head.weight", shard);
}

std::vector<Parameter*> Llama::parameters() {
  std::vector<Parameter*> all;
  embedding_.collect(all);
  for (auto& layer : layers_) {
    layer->input_norm.collect(all);
    layer->attention.collect(all);
    layer->post_attention_norm.collect(all);
    layer->mlp.collect(all);
  }
  final_norm_.collect(all);
  if (head_ != nullptr) head_->collect(all);
  return all;
}

void Llama::forward(ForwardContext& context, const Tensor& ids, const Tensor& out) const {
  const Tensor& residual = out;
  WorkspaceScope scope(context.workspace);
  const Tensor x = context.workspace.take(out.rows, out.cols);
  embedding_.embed(context, ids, residual);
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = *layers_[i];
    context.progress.layer.store(static_cast<int32_t>(i), std::memory_order_relaxed);
    context.progress.move();
    if (i == 0) {
      layer.input_norm.forward(context, residual, x);
    } else {
      layer.input_norm.add_forward(context, x, residual, x);
    }
    layer.attention.forward(context, x, x);
    layer.post_attention_norm.add_forward(context, x, residual, x);
    layer.mlp.forward(context, x, x);
  }
  context.backend.add(residual, x);
  context.progress.layer.store(-1, std::memory_order_relaxed);
}

void Llama::logits(ForwardContext& context, const Tensor& rows, const Tensor& out) const {
  final_norm_.forward(context, rows, rows);
  (head_ != nullptr ? *head_ : embedding_).project(context, rows, out);
}

}  // namespace trireme
