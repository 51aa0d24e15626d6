#pragma once
// Models by name: their shapes, one row each.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/plan/shard_plan.h"

namespace trireme {

struct ModelSpec {
  ModelShape shape;       // dtype fields unset
  double parameters = 0;  // as published
  int max_context = 0;
  std::string notes;

  /// Whether engine/models has its architecture: dense, attention in every layer.
  bool servable() const { return shape.num_experts == 0 && shape.state_elements == 0; }
};

/// Parameters that the sizes of a shape say.
double count_parameters(const ModelShape& shape);

class ModelTable {
 public:
  /// Adds the rows of a CSV table; a row of a known name replaces it. INVALID_ARGUMENT naming line and
  /// column.
  absl::Status add(std::string_view csv, const std::string& where);
  /// Case, '-', '_' and spaces aside. NOT_FOUND with the nearest names.
  absl::StatusOr<ModelSpec> find(std::string_view name) const;
  const std::vector<ModelSpec>& models() const { return models_; }

 private:
  std::vector<ModelSpec> models_;
};

/// How weights or KV cache are kept.
struct NumberFormat {
  std::string name;
  int bits = 16;
  int scale_group = 0;  // weights that share one 2-byte scale
  bool quantized = false;
};
/// bf16, f16, f32, fp8, int8, int4 (in groups of 128). INVALID_ARGUMENT naming `flag`.
absl::StatusOr<NumberFormat> parse_number_format(std::string_view name, std::string_view flag);

/// The shape with its dtypes: where the layers are quantized, embedding and head stay in 2 bytes. The cache
/// cannot be int4.
absl::StatusOr<ModelShape> with_formats(ModelShape shape, const NumberFormat& weights,
                                        const NumberFormat& cache);

}  // namespace trireme
