#pragma once
// What config.json and generation_config.json say, checked.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/dtype.h"

namespace trireme {

/// Rotary scaling kinds of Hugging Face's `rope_scaling` (ROPE_INIT_FUNCTIONS of transformers).
struct RopeScaling {
  enum class Kind { none, linear, dynamic, llama3, yarn };
  Kind kind = Kind::none;
  double factor = 1;
  double low_freq_factor = 1;   // llama3
  double high_freq_factor = 4;  // llama3
  int original_max_position = 0;
  double beta_fast = 32;                   // yarn
  double beta_slow = 1;                    // yarn
  std::optional<double> attention_factor;  // yarn
  double mscale = 0, mscale_all_dim = 0;   // yarn
  bool truncate = true;                    // yarn
};

/// A decoder-only transformer. Names are those of Hugging Face.
struct ModelConfig {
  std::string architecture;  // architectures[0], e.g. LlamaForCausalLM
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int vocab_size = 0;
  int max_position_embeddings = 0;
  float rms_norm_eps = 1e-6f;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  // on q, k, v (Qwen2 always; Llama when attention_bias)
  bool attention_out_bias = false;
  bool mlp_bias = false;
  bool qk_norm = false;                 // Qwen3
  int sliding_window = 0;               // tokens a token attends to, itself included; 0: no layer slides
  std::vector<bool> layer_slides;       // [num_layers] where sliding_window > 0, else empty
  DType checkpoint_dtype = DType::f32;  // torch_dtype; the tensors' own dtypes decide in the end
  std::vector<int> eos_token_ids;
  int bos_token_id = -1;
  std::string hash;  // FNV-1a of the file's bytes, hex; replicas of one model must agree

  /// Tokens that `layer` attends to, the token itself included (AttentionSpec::window_left is one less); 0:
  /// all.
  int window_of_layer(int layer) const;

  /// Inverse frequencies f32 [head_dim / 2], and the factor on cos and sin. `max_context_len` matters to
  /// dynamic only, which uses the frequencies of that length (at least max_position_embeddings) from the
  /// first token on, so that a token's key does not depend on what follows it. Rounds where transformers
  /// rounds. Source: ROPE_INIT_FUNCTIONS of transformers; YaRN: arXiv:2309.00071.
  std::vector<float> inverse_frequencies(int max_context_len, float* attention_factor) const;
};

/// Defaults a request's unset fields take. Where do_sample is false or absent the model wants greedy
/// decoding: temperature, top_p, top_k and min_p stay unset whatever the file says. Where it is true an
/// absent temperature is 1.
struct GenerationDefaults {
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int> top_k;
  bool do_sample = false;
  std::vector<int> eos_token_ids;
};

/// INVALID_ARGUMENT / NOT_FOUND naming the file, the field, got and wanted. An unknown architecture lists the
/// known ones, an unknown rope scaling the known kinds; `path` is that of the file.
absl::StatusOr<ModelConfig> load_model_config(const std::string& path);
absl::StatusOr<ModelConfig> parse_model_config(const std::string& json, const std::string& where);
/// Reads generation_config.json. A missing file gives defaults; INVALID_ARGUMENT as above.
absl::StatusOr<GenerationDefaults> load_generation_defaults(const std::string& model_dir);
absl::StatusOr<GenerationDefaults> parse_generation_defaults(const std::string& json,
                                                             const std::string& where);

}  // namespace trireme
