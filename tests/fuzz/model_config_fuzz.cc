// config.json, and the same bytes as generation_config.json.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/config.h"
#include "kernels/check.h"

namespace {

void check_config(const trireme::ModelConfig& config) {
  CHECK_GE(config.num_layers, 1);
  CHECK_EQ(config.num_heads % config.num_kv_heads, 0);
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const int window = config.window_of_layer(layer);
    TRIREME_CHECK(window == 0 || window == config.sliding_window);
  }
  for (const int token : config.eos_token_ids) TRIREME_CHECK(token >= 0 && token < config.vocab_size);
  float factor = 0;
  const std::vector<float> frequencies = config.inverse_frequencies(config.max_position_embeddings, &factor);
  CHECK_EQ(frequencies.size(), static_cast<size_t>(config.head_dim / 2));
  for (const float frequency : frequencies) TRIREME_CHECK(std::isfinite(frequency) && frequency > 0);
  TRIREME_CHECK(std::isfinite(factor));
}

void check_defaults(const trireme::GenerationDefaults& defaults) {
  for (const auto& value :
       {defaults.temperature, defaults.top_p, defaults.min_p, defaults.repetition_penalty}) {
    TRIREME_CHECK(!value.has_value() || (std::isfinite(*value) && *value >= 0));
  }
  if (!defaults.do_sample) TRIREME_CHECK(!defaults.temperature.has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto config = trireme::parse_model_config(text, "f");
  TRIREME_CHECK(config.ok() || absl::IsInvalidArgument(config.status()));
  if (config.ok()) check_config(*config);
  const auto defaults = trireme::parse_generation_defaults(text, "f");
  TRIREME_CHECK(defaults.ok() || absl::IsInvalidArgument(defaults.status()));
  if (defaults.ok()) check_defaults(*defaults);
  return 0;
}
