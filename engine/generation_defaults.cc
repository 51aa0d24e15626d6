#include <climits>

#include "absl/status/statusor.h"
#include "engine/config.h"
#include "engine/json_document.h"

namespace trireme {
namespace {

constexpr uint64_t kMaxFileBytes = 1 << 20;
constexpr double kMaxTemperature = 100;

std::optional<float> optional_number(JsonFields& fields, const char* field, double min, double max) {
  if (!fields.has(field)) return std::nullopt;
  return static_cast<float>(fields.number(field, min, max, std::nullopt));
}

}  // namespace

absl::StatusOr<GenerationDefaults> parse_generation_defaults(const std::string& json,
                                                             const std::string& where) {
  absl::StatusOr<nlohmann::json> object = parse_json_object(json, where);
  if (!object.ok()) return object.status();
  JsonFields fields(*object, where);
  GenerationDefaults defaults;
  defaults.do_sample = fields.boolean("do_sample", false);
  defaults.temperature = optional_number(fields, "temperature", 0, kMaxTemperature);
  defaults.top_p = optional_number(fields, "top_p", 0, 1);
  defaults.min_p = optional_number(fields, "min_p", 0, 1);
  if (fields.has("top_k")) {
    // -1 and 0 both switch it off.
    defaults.top_k =
        static_cast<int>(std::max<int64_t>(0, fields.integer("top_k", -1, INT_MAX, std::nullopt)));
  }
  defaults.repetition_penalty = optional_number(fields, "repetition_penalty", 1e-3, 1e3);
  defaults.eos_token_ids = fields.integers("eos_token_id", 0, INT_MAX, {});
  if (!fields.status().ok()) return fields.status();

  // A top_p of 0 would leave no token at all; in transformers it means the best one.
  const bool greedy = !defaults.do_sample || (defaults.top_p.has_value() && *defaults.top_p == 0);
  if (greedy) {
    defaults.temperature = defaults.top_p = defaults.min_p = std::nullopt;
    defaults.top_k = std::nullopt;
  } else if (!defaults.temperature.has_value()) {
    defaults.temperature = 1.0f;
  }
  return defaults;
}

absl::StatusOr<GenerationDefaults> load_generation_defaults(const std::string& model_dir) {
  const std::string path = model_dir + "/generation_config.json";
  absl::StatusOr<std::string> text = read_small_file(path, kMaxFileBytes);
  if (absl::IsNotFound(text.status())) return GenerationDefaults{};
  if (!text.ok()) return text.status();
  return parse_generation_defaults(*text, path);
}

}  // namespace trireme
