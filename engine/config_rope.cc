#include "engine/config_rope.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/check.h"

namespace trireme {
namespace {

constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;
constexpr int kMaxContext = 1 << 28;

using Kind = RopeScaling::Kind;

const std::map<std::string, Kind>& known_kinds() {
  static const auto* known = new std::map<std::string, Kind>{{"default", Kind::none},
                                                             {"linear", Kind::linear},
                                                             {"dynamic", Kind::dynamic},
                                                             {"llama3", Kind::llama3},
                                                             {"yarn", Kind::yarn}};
  return *known;
}

/// transformers takes `rope_scaling` first, and either only when it is not empty.
std::string block_name(const JsonFields& fields) {
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const nlohmann::json* block = fields.find(name);
    if (block != nullptr && !(block->is_object() && block->empty())) return name;
  }
  return "";
}

void read_kind(JsonFields& block, RopeScaling& scaling) {
  const char* field = !block.has("rope_type") && block.has("type") ? "type" : "rope_type";
  const std::string name = block.text(field, "default");
  const auto known = known_kinds().find(name);
  if (known != known_kinds().end()) {
    scaling.kind = known->second;
    return;
  }
  block.fail(
      field, describe_json(name),
      absl::StrCat("one of ", absl::StrJoin(known_kinds(), ", ", [](std::string* out, const auto& kind) {
                     absl::StrAppend(out, kind.first);
                   })));
}

void read_original_length(JsonFields& fields, JsonFields& block, ModelConfig& config) {
  const char* name = "original_max_position_embeddings";
  const int64_t inside = block.integer(name, 1, kMaxContext, config.max_position_embeddings);
  // Beside the block it wins, as in transformers.
  config.rope_scaling.original_max_position = static_cast<int>(fields.integer(name, 1, kMaxContext, inside));
}

void read_llama3(JsonFields& block, RopeScaling& scaling) {
  scaling.low_freq_factor = block.number("low_freq_factor", 1e-6, kMaxFactor, std::nullopt);
  scaling.high_freq_factor = block.number("high_freq_factor", 1e-6, kMaxFactor, std::nullopt);
  if (block.status().ok() && scaling.high_freq_factor <= scaling.low_freq_factor) {
    block.fail("high_freq_factor", absl::StrCat(scaling.high_freq_factor),
               absl::StrCat("more than low_freq_factor ", scaling.low_freq_factor));
  }
}

void read_yarn(JsonFields& block, RopeScaling& scaling) {
  if (block.has("attention_factor")) {
    scaling.attention_factor = block.number("attention_factor", 0, kMaxFactor, std::nullopt);
  }
  // 0 means unset in transformers ("or 32").
  const double fast = block.number("beta_fast", 0, kMaxFactor, 32.0);
  const double slow = block.number("beta_slow", 0, kMaxFactor, 1.0);
  scaling.beta_fast = fast > 0 ? fast : 32;
  scaling.beta_slow = slow > 0 ? slow : 1;
  scaling.mscale = block.number("mscale", 0, kMaxFactor, 0.0);
  scaling.mscale_all_dim = block.number("mscale_all_dim", 0, kMaxFactor, 0.0);
  scaling.truncate = block.boolean("truncate", true);
}

void read_block(JsonFields& fields, JsonFields& block, ModelConfig& config) {
  RopeScaling& scaling = config.rope_scaling;
  config.rope_theta = block.number("rope_theta", 1, kMaxTheta, config.rope_theta);
  for (const char* nested : {"full_attention", "sliding_attention"}) {
    if (block.has(nested)) block.fail(nested, "a block of its own", "one block for all layers");
  }
  if (block.number("partial_rotary_factor", 0, 1, 1.0) != 1) {
    block.fail("partial_rotary_factor", describe_json(*block.find("partial_rotary_factor")), "1");
  }
  read_kind(block, scaling);
  if (scaling.kind == Kind::none || !block.status().ok()) return;
  if (scaling.kind == Kind::llama3 || scaling.kind == Kind::yarn) read_original_length(fields, block, config);
  std::optional<double> factor;
  if (scaling.kind == Kind::yarn) {
    factor = std::max(1.0, 1.0 * config.max_position_embeddings / scaling.original_max_position);
  }
  scaling.factor = block.number("factor", 1, kMaxFactor, factor);
  if (scaling.kind == Kind::llama3) read_llama3(block, scaling);
  if (scaling.kind == Kind::yarn) read_yarn(block, scaling);
}

}  // namespace

void read_rope(JsonFields& fields, const std::string& where, ModelConfig& config) {
  config.rope_theta = fields.number("rope_theta", 1, kMaxTheta, 10000.0);
  if (fields.number("partial_rotary_factor", 0, 1, 1.0) != 1) {
    fields.fail("partial_rotary_factor", describe_json(*fields.find("partial_rotary_factor")), "1");
  }
  const std::string name = block_name(fields);
  if (name.empty()) return;
  const nlohmann::json& object = *fields.find(name);
  if (!object.is_object()) return fields.fail(name, describe_json(object), "an object or null");
  JsonFields block(object, absl::StrCat(where, ": ", name));
  read_block(fields, block, config);
  fields.keep(block.status());
}

// ---- frequencies
// -------------------------------------------------------------------------------------------- transformers
// computes them as f32 tensors. At a position of 100,000 the rounding of an exponent moves an angle by some
// hundredths, so each step rounds here where it rounds there.

namespace {

/// base^(2i / dim), each step rounded to f32; pow itself is within one unit of torch's.
std::vector<float> powers(double base, int dim) {
  std::vector<float> result;
  for (int i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    result.push_back(static_cast<float>(
        std::pow(static_cast<double>(static_cast<float>(base)), static_cast<double>(exponent))));
  }
  return result;
}

std::vector<float> inverse_powers(double base, int dim) {
  std::vector<float> result = powers(base, dim);
  for (float& value : result) value = 1.0f / value;
  return result;
}

/// Long wavelengths are stretched by `factor`, short ones kept, those between interpolated.
void scale_llama3(const RopeScaling& scaling, std::vector<float>& frequencies) {
  const auto factor = static_cast<float>(scaling.factor);
  const auto length = static_cast<float>(scaling.original_max_position);
  const auto low = static_cast<float>(scaling.low_freq_factor);
  const auto longest_kept = static_cast<float>(scaling.original_max_position / scaling.high_freq_factor);
  const auto shortest_scaled = static_cast<float>(scaling.original_max_position / scaling.low_freq_factor);
  for (float& frequency : frequencies) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
    if (wavelength > shortest_scaled) {
      frequency /= factor;
    } else if (wavelength >= longest_kept) {
      const float smooth = (length / wavelength - low) /
                           static_cast<float>(scaling.high_freq_factor - scaling.low_freq_factor);
      frequency = (1 - smooth) * frequency / factor + smooth * frequency;
    }
  }
}

/// Index of the element that turns `rotations` times over the original context.
double yarn_boundary(double rotations, int dim, double base, int original_length) {
  return dim * std::log(original_length / (rotations * 2 * std::numbers::pi)) / (2 * std::log(base));
}

std::vector<float> yarn_frequencies(const RopeScaling& scaling, double base, int dim) {
  double low = yarn_boundary(scaling.beta_fast, dim, base, scaling.original_max_position);
  double high = yarn_boundary(scaling.beta_slow, dim, base, scaling.original_max_position);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;

  std::vector<float> result = powers(base, dim);
  for (size_t i = 0; i < result.size(); ++i) {
    const float extrapolated = 1.0f / result[i];
    const float interpolated = 1.0f / (static_cast<float>(scaling.factor) * result[i]);
    const float ramp = (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low);
    const float kept = 1 - std::clamp(ramp, 0.0f, 1.0f);
    result[i] = interpolated * (1 - kept) + extrapolated * kept;
  }
  return result;
}

float yarn_attention_factor(const RopeScaling& scaling) {
  if (scaling.attention_factor.has_value()) return static_cast<float>(*scaling.attention_factor);
  const auto mscale = [&](double scale) {
    return scaling.factor <= 1 ? 1.0 : 0.1 * scale * std::log(scaling.factor) + 1.0;
  };
  if (scaling.mscale > 0 && scaling.mscale_all_dim > 0) {
    return static_cast<float>(mscale(scaling.mscale) / mscale(scaling.mscale_all_dim));
  }
  return static_cast<float>(mscale(1));
}

}  // namespace

std::vector<float> ModelConfig::inverse_frequencies(int max_context_len, float* attention_factor) const {
  CHECK_NE(attention_factor, nullptr);
  *attention_factor = 1;
  switch (rope_scaling.kind) {
    case Kind::none:
      break;
    case Kind::linear: {
      std::vector<float> result = inverse_powers(rope_theta, head_dim);
      for (float& value : result) value /= static_cast<float>(rope_scaling.factor);
      return result;
    }
    case Kind::dynamic: {
      const double factor = rope_scaling.factor;
      const double length = std::max(max_context_len, max_position_embeddings);
      const double stretch = factor * length / max_position_embeddings - (factor - 1);
      return inverse_powers(rope_theta * std::pow(stretch, head_dim / (head_dim - 2.0)), head_dim);
    }
    case Kind::llama3: {
      std::vector<float> result = inverse_powers(rope_theta, head_dim);
      scale_llama3(rope_scaling, result);
      return result;
    }
    case Kind::yarn:
      *attention_factor = yarn_attention_factor(rope_scaling);
      return yarn_frequencies(rope_scaling, rope_theta, head_dim);
  }
  return inverse_powers(rope_theta, head_dim);
}

}  // namespace trireme
