// From the architecture a config.json names to the model that computes it.

#include <algorithm>
#include <array>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/models/llama.h"

namespace trireme {
namespace {

constexpr std::array<const char*, 4> kLlamaFamily = {"LlamaForCausalLM", "MistralForCausalLM",
                                                     "Qwen2ForCausalLM", "Qwen3ForCausalLM"};

}  // namespace

absl::StatusOr<std::unique_ptr<CausalLm>> create_causal_lm(const ModelConfig& config, const Shard& shard,
                                                           Backend& backend, int max_context_len) {
  if (std::find(kLlamaFamily.begin(), kLlamaFamily.end(), config.architecture) == kLlamaFamily.end()) {
    return absl::UnimplementedError(absl::StrCat("architecture: got ", config.architecture, ", known are ",
                                                 absl::StrJoin(kLlamaFamily, ", ")));
  }
  float attention_factor = 1;
  const std::vector<float> frequencies = config.inverse_frequencies(max_context_len, &attention_factor);
  const size_t bytes = frequencies.size() * sizeof(float);
  auto buffer = backend.allocate(bytes);
  if (!buffer.ok()) return buffer.status();
  backend.copy_to_device(buffer->data(), frequencies.data(), bytes);
  return std::make_unique<Llama>(config, shard, *std::move(buffer), attention_factor);
}

ModelShape model_shape(const ModelConfig& config, const std::string& name, DType weight_dtype,
                       DType kv_dtype) {
  ModelShape shape;
  shape.name = name;
  shape.hidden_size = config.hidden_size;
  shape.intermediate_size = config.intermediate_size;
  shape.num_layers = config.num_layers;
  shape.num_heads = config.num_heads;
  shape.num_kv_heads = config.num_kv_heads;
  shape.head_dim = config.head_dim;
  shape.vocab_size = config.vocab_size;
  shape.tie_word_embeddings = config.tie_word_embeddings;
  shape.qkv_bias = config.attention_bias;
  shape.out_bias = config.attention_out_bias;
  shape.mlp_bias = config.mlp_bias;
  shape.qk_norm = config.qk_norm;
  shape.weight_dtype_bytes = static_cast<int>(dtype_bytes(weight_dtype));
  shape.kv_dtype_bytes = static_cast<int>(dtype_bytes(kv_dtype));
  return shape;
}

}  // namespace trireme
