#include "engine/plan/model_table.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/plan/csv_table.h"
#include "engine/plan/nearest_name.h"

namespace trireme {
namespace {

constexpr int kMaxFeatures = 1 << 22;
const std::array<NumberFormat, 6>& formats() {
  static const auto* known =
      new std::array<NumberFormat, 6>{NumberFormat{"bf16", 16, 0, false}, NumberFormat{"f16", 16, 0, false},
                                      NumberFormat{"f32", 32, 0, false},  NumberFormat{"fp8", 8, 0, true},
                                      NumberFormat{"int8", 8, 0, true},   NumberFormat{"int4", 4, 128, true}};
  return *known;
}

ModelSpec read_model(CsvRow& row) {
  const auto size = [&](const char* column) { return row.integer(column, 1, kMaxFeatures, std::nullopt); };
  ModelSpec model;
  ModelShape& shape = model.shape;
  shape.name = row.name("name");
  model.parameters = 1e9 * row.number("params_b", 0, 1e6, 0.0);
  shape.num_layers = row.integer("layers", 1, 4096, std::nullopt);
  shape.hidden_size = size("hidden");
  shape.intermediate_size = size("intermediate");
  shape.num_heads = row.integer("heads", 1, 4096, std::nullopt);
  shape.num_kv_heads = row.integer("kv_heads", 1, 4096, std::nullopt);
  shape.head_dim = row.integer("head_dim", 1, 4096, std::nullopt);
  shape.vocab_size = row.integer("vocab", 1, 1 << 24, std::nullopt);
  shape.tie_word_embeddings = row.boolean("tie_embeddings", false);
  model.max_context = row.integer("context", 1, 1 << 28, std::nullopt);
  shape.qkv_bias = row.boolean("qkv_bias", false);
  shape.qk_norm = row.boolean("qk_norm", false);
  shape.num_experts = row.integer("experts", 2, 4096, 0);
  shape.experts_per_token = row.integer("experts_per_token", 1, 4096, 0);
  shape.cache_layers = row.integer("cache_layers", 1, 4096, 0);
  shape.state_elements = static_cast<int64_t>(row.number("state_elements", 0, 1e12, 0.0));
  shape.other_parameters = static_cast<int64_t>(1e6 * row.number("other_params_m", 0, 1e6, 0.0));
  model.notes = row.text("notes");
  if (shape.num_heads % shape.num_kv_heads != 0) {
    row.fail("kv_heads", absl::StrCat(shape.num_kv_heads),
             absl::StrCat("a divisor of heads ", shape.num_heads));
  }
  if ((shape.num_experts > 0) != (shape.experts_per_token > 0) ||
      shape.experts_per_token > shape.num_experts) {
    row.fail("experts_per_token", absl::StrCat(shape.experts_per_token),
             absl::StrCat("1 to experts ", shape.num_experts, ", or both empty"));
  }
  if (shape.cache_layers > shape.num_layers) {
    row.fail("cache_layers", absl::StrCat(shape.cache_layers),
             absl::StrCat("at most layers ", shape.num_layers));
  }
  return model;
}

}  // namespace

double count_parameters(const ModelShape& shape) {
  const double hidden = shape.hidden_size;
  const double q = static_cast<double>(shape.num_heads) * shape.head_dim;
  const double kv = static_cast<double>(shape.num_kv_heads) * shape.head_dim;
  const double mlp =
      3 * hidden * shape.intermediate_size * std::max(shape.num_experts, 1) + hidden * shape.num_experts;
  double layer = hidden * (2 * q + 2 * kv) + mlp + 2 * hidden;
  if (shape.qkv_bias) layer += q + 2 * kv;
  if (shape.out_bias) layer += hidden;
  if (shape.mlp_bias) layer += 2.0 * shape.intermediate_size + hidden;
  if (shape.qk_norm) layer += 2 * shape.head_dim;
  return shape.num_layers * layer + hidden + static_cast<double>(shape.other_parameters) +
         hidden * shape.vocab_size * (shape.tie_word_embeddings ? 1 : 2);
}

absl::Status ModelTable::add(std::string_view csv, const std::string& where) {
  auto table = CsvTable::parse(
      csv, where,
      {"name", "layers", "hidden", "intermediate", "heads", "kv_heads", "head_dim", "vocab", "context"});
  if (!table.ok()) return table.status();
  std::vector<std::string> here;
  for (size_t i = 0; i < table->num_rows(); ++i) {
    CsvRow row(*table, i);
    ModelSpec model = read_model(row);
    if (std::find(here.begin(), here.end(), model.shape.name) != here.end()) {
      row.fail("name", absl::StrCat("'", model.shape.name, "' again"), "each name once");
    }
    if (!row.status().ok()) return row.status();
    here.push_back(model.shape.name);
    const auto known = std::find_if(models_.begin(), models_.end(), [&](const ModelSpec& other) {
      return other.shape.name == model.shape.name;
    });
    if (known == models_.end()) {
      models_.push_back(std::move(model));
    } else {
      *known = std::move(model);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelSpec> ModelTable::find(std::string_view name) const {
  std::vector<std::string> names;
  for (const ModelSpec& model : models_) {
    if (edit_distance(name, model.shape.name) == 0) return model;
    names.push_back(model.shape.name);
  }
  return absl::NotFoundError(absl::StrCat("model '", std::string(name), "' is not in the table; nearest are ",
                                          absl::StrJoin(nearest_names(name, names, 3), ", "),
                                          "; --model-table adds rows, --model takes a directory"));
}

absl::StatusOr<NumberFormat> parse_number_format(std::string_view name, std::string_view flag) {
  for (const NumberFormat& format : formats()) {
    if (format.name == name) return format;
  }
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(flag), ": got '", std::string(name), "', wanted ",
                   absl::StrJoin(formats(), ", ", [](std::string* out, const NumberFormat& format) {
                     absl::StrAppend(out, format.name);
                   })));
}

absl::StatusOr<ModelShape> with_formats(ModelShape shape, const NumberFormat& weights,
                                        const NumberFormat& cache) {
  if (cache.bits < 8) {
    return absl::InvalidArgumentError(
        absl::StrCat("--kv-dtype: got ", cache.name, ", wanted one of at least 8 bits"));
  }
  shape.weight_dtype_bytes = weights.quantized ? 2 : weights.bits / 8;
  shape.layer_weight_bits = weights.quantized ? weights.bits : 0;
  shape.scale_group = weights.scale_group;
  shape.activation_dtype_bytes = shape.weight_dtype_bytes;
  shape.kv_dtype_bytes = cache.bits / 8;
  return shape;
}

}  // namespace trireme
