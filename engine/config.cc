#include "engine/config.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/config_rope.h"
#include "engine/json_document.h"
#include "kernels/check.h"

namespace trireme {
namespace {

constexpr uint64_t kMaxConfigBytes = 4 << 20;
constexpr int kMaxFeatures = 1 << 20;
constexpr int kMaxLayers = 4096;
constexpr int kMaxVocabSize = 1 << 24;
constexpr int kMaxContext = 1 << 28;

/// What transformers assumes where config.json is silent.
struct ArchitectureDefaults {
  int num_kv_heads = 0;  // 0: as many as query heads
  int head_dim = 0;      // 0: hidden_size / num_attention_heads
  int max_position_embeddings = 0;
  int bos_token_id = -1;
  std::vector<int> eos_token_ids = {};
  bool tie_word_embeddings = false;
};

const std::map<std::string, ArchitectureDefaults>& known_architectures() {
  static const auto* known = new std::map<std::string, ArchitectureDefaults>{
      {"LlamaForCausalLM", {.max_position_embeddings = 2048, .bos_token_id = 1, .eos_token_ids = {2}}},
      {"MistralForCausalLM",
       {.num_kv_heads = 8, .max_position_embeddings = 131072, .bos_token_id = 1, .eos_token_ids = {2}}},
      {"Qwen2ForCausalLM", {.num_kv_heads = 32, .max_position_embeddings = 32768}},
      {"Qwen3ForCausalLM", {.num_kv_heads = 32, .head_dim = 128, .max_position_embeddings = 32768}},
  };
  return *known;
}

std::string known_names() {
  return absl::StrJoin(known_architectures(), ", ",
                       [](std::string* out, const auto& entry) { absl::StrAppend(out, entry.first); });
}

std::string fnv1a_hex(std::string_view bytes) {
  uint64_t hash = 14695981039346656037u;
  for (const char byte : bytes) hash = (hash ^ static_cast<uint8_t>(byte)) * 1099511628211u;
  return absl::StrFormat("%016x", hash);
}

void read_architecture(JsonFields& fields, ModelConfig& config) {
  const nlohmann::json* list = fields.find("architectures");
  const std::string wanted = absl::StrCat("one of ", known_names());
  if (list == nullptr || !list->is_array() || list->empty() || !list->front().is_string()) {
    return fields.fail("architectures", list == nullptr ? "nothing" : describe_json(*list),
                       absl::StrCat("a list whose first entry is ", wanted));
  }
  config.architecture = list->front().get<std::string>();
  if (known_architectures().count(config.architecture) == 0) {
    fields.fail("architectures", describe_json(list->front()), wanted);
  }
}

void refuse_quantization(JsonFields& fields) {
  for (const char* field : {"quantization_config", "compression_config"}) {
    const nlohmann::json* value = fields.find(field);
    if (value == nullptr) continue;
    const bool has_method = value->is_object() && value->contains("quant_method");
    fields.fail(field, describe_json(has_method ? value->at("quant_method") : *value),
                "none: quantized checkpoints are not supported");
  }
}

void read_sizes(const nlohmann::json& object, JsonFields& fields, const ArchitectureDefaults& defaults,
                ModelConfig& config) {
  const auto size = [&](const char* field, int max, std::optional<int64_t> fallback) {
    return static_cast<int>(fields.integer(field, 1, max, fallback));
  };
  config.hidden_size = size("hidden_size", kMaxFeatures, std::nullopt);
  config.intermediate_size = size("intermediate_size", kMaxFeatures * 4, std::nullopt);
  config.num_layers = size("num_hidden_layers", kMaxLayers, std::nullopt);
  config.num_heads = size("num_attention_heads", 4096, std::nullopt);
  config.vocab_size = size("vocab_size", kMaxVocabSize, std::nullopt);
  config.max_position_embeddings =
      size("max_position_embeddings", kMaxContext, defaults.max_position_embeddings);
  config.rms_norm_eps = static_cast<float>(fields.number("rms_norm_eps", 0, 1, 1e-6));
  if (!fields.status().ok()) return;

  // Written as null the field means "as many as query heads"; its absence means the class's default.
  const bool class_default = defaults.num_kv_heads > 0 && !object.contains("num_key_value_heads");
  config.num_kv_heads =
      size("num_key_value_heads", 4096, class_default ? defaults.num_kv_heads : config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    fields.fail("num_key_value_heads", absl::StrCat(config.num_kv_heads),
                absl::StrCat("a divisor of num_attention_heads ", config.num_heads));
  }
  if (!fields.has("head_dim") && defaults.head_dim == 0 && config.hidden_size % config.num_heads != 0) {
    fields.fail("hidden_size", absl::StrCat(config.hidden_size),
                absl::StrCat("a multiple of num_attention_heads ", config.num_heads, ", or head_dim"));
  }
  const int derived = std::max(1, config.hidden_size / config.num_heads);
  config.head_dim = size("head_dim", 1024, defaults.head_dim > 0 ? defaults.head_dim : derived);
  if (config.head_dim % 2 != 0 || config.head_dim > 1024) {
    fields.fail("head_dim", absl::StrCat(config.head_dim), "an even number up to 1024");
  }
}

void read_layer_options(JsonFields& fields, const ArchitectureDefaults& defaults, ModelConfig& config) {
  const std::string activation = fields.text("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    fields.fail("hidden_act", describe_json(activation), "\"silu\"");
  }
  const bool attention_bias = fields.boolean("attention_bias", false);
  const bool mlp_bias = fields.boolean("mlp_bias", false);
  if (config.architecture == "LlamaForCausalLM") {
    config.attention_bias = config.attention_out_bias = attention_bias;
    config.mlp_bias = mlp_bias;
  } else if (config.architecture == "Qwen2ForCausalLM") {
    config.attention_bias = true;
  } else if (config.architecture == "Qwen3ForCausalLM") {
    config.attention_bias = config.attention_out_bias = attention_bias;
    config.qk_norm = true;
  }
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", defaults.tie_word_embeddings);
}

void read_dtype(JsonFields& fields, ModelConfig& config) {
  const char* field = fields.has("dtype") ? "dtype" : "torch_dtype";
  const std::string name = fields.text(field, "float32");
  if (name == "float32") {
    config.checkpoint_dtype = DType::f32;
  } else if (name == "float16") {
    config.checkpoint_dtype = DType::f16;
  } else if (name == "bfloat16") {
    config.checkpoint_dtype = DType::bf16;
  } else {
    fields.fail(field, describe_json(name), "float32, float16 or bfloat16");
  }
}

void read_tokens(const nlohmann::json& object, JsonFields& fields, const ArchitectureDefaults& defaults,
                 ModelConfig& config) {
  const int last = config.vocab_size - 1;
  // Some checkpoints write a list; the first is what starts a prompt. An explicit null means none.
  const std::vector<int> bos = fields.integers("bos_token_id", 0, last, {});
  const bool bos_absent = !object.contains("bos_token_id");
  config.bos_token_id = !bos.empty() ? bos.front() : bos_absent ? defaults.bos_token_id : -1;
  const bool eos_absent = !object.contains("eos_token_id");
  config.eos_token_ids =
      fields.integers("eos_token_id", 0, last, eos_absent ? defaults.eos_token_ids : std::vector<int>());
}

/// Which layers slide, as the architecture's class in transformers decides it without `layer_types`.
void read_default_windows(const nlohmann::json& object, JsonFields& fields, ModelConfig& config) {
  const bool qwen = config.architecture == "Qwen2ForCausalLM" || config.architecture == "Qwen3ForCausalLM";
  if (!qwen && config.architecture != "MistralForCausalLM") return;
  if (qwen && !fields.boolean("use_sliding_window", false)) return;
  const int absent = object.contains("sliding_window") ? 0 : 4096;  // null: none
  config.sliding_window = static_cast<int>(fields.integer("sliding_window", 1, kMaxContext, absent));
  if (config.sliding_window == 0) return;
  const int64_t first = qwen ? fields.integer("max_window_layers", 0, INT32_MAX, 28) : 0;
  for (int layer = 0; layer < config.num_layers; ++layer) config.layer_slides.push_back(layer >= first);
}

void read_layer_types(JsonFields& fields, ModelConfig& config) {
  const nlohmann::json* list = fields.find("layer_types");
  if (list == nullptr) return;
  const std::string wanted =
      absl::StrCat("a list of ", config.num_layers, " times \"full_attention\" or \"sliding_attention\"");
  if (!list->is_array() || list->size() != static_cast<size_t>(config.num_layers)) {
    return fields.fail("layer_types", describe_json(*list), wanted);
  }
  std::vector<bool> slides;
  for (const nlohmann::json& item : *list) {
    if (item != "full_attention" && item != "sliding_attention") {
      return fields.fail("layer_types", describe_json(item), wanted);
    }
    slides.push_back(item == "sliding_attention");
  }
  const bool any = std::find(slides.begin(), slides.end(), true) != slides.end();
  if (any && config.sliding_window == 0) {
    return fields.fail(
        "layer_types", "\"sliding_attention\"",
        absl::StrCat("\"full_attention\" where ", config.architecture, " has no sliding_window in use"));
  }
  if (config.sliding_window > 0) config.layer_slides = std::move(slides);
}

/// A file whose numbers are each in range can still ask for what no arithmetic gives (YaRN with rope_theta
/// 1).
void check_frequencies(JsonFields& fields, const ModelConfig& config) {
  float factor = 0;
  for (const float frequency : config.inverse_frequencies(config.max_position_embeddings, &factor)) {
    if (std::isfinite(frequency) && frequency > 0 && std::isfinite(factor)) continue;
    return fields.fail("rope_scaling", absl::StrCat("values that give the inverse frequency ", frequency),
                       "finite positive frequencies");
  }
}

}  // namespace

int ModelConfig::window_of_layer(int layer) const {
  CHECK_GE(layer, 0);
  CHECK_LT(layer, num_layers);
  return sliding_window > 0 && layer_slides[static_cast<size_t>(layer)] ? sliding_window : 0;
}

absl::StatusOr<ModelConfig> load_model_config(const std::string& path) {
  absl::StatusOr<std::string> text = read_small_file(path, kMaxConfigBytes);
  if (!text.ok()) return text.status();
  return parse_model_config(*text, path);
}

absl::StatusOr<ModelConfig> parse_model_config(const std::string& json, const std::string& where) {
  absl::StatusOr<nlohmann::json> object = parse_json_object(json, where);
  if (!object.ok()) return object.status();
  JsonFields fields(*object, where);
  ModelConfig config;
  config.hash = fnv1a_hex(json);
  read_architecture(fields, config);
  refuse_quantization(fields);
  if (!fields.status().ok()) return fields.status();
  const ArchitectureDefaults& defaults = known_architectures().at(config.architecture);
  read_sizes(*object, fields, defaults, config);
  if (!fields.status().ok()) return fields.status();
  read_layer_options(fields, defaults, config);
  read_dtype(fields, config);
  read_tokens(*object, fields, defaults, config);
  read_default_windows(*object, fields, config);
  read_layer_types(fields, config);
  read_rope(fields, where, config);
  if (fields.status().ok()) check_frequencies(fields, config);
  if (!fields.status().ok()) return fields.status();
  return config;
}

}  // namespace trireme
