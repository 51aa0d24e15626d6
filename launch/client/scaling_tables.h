#pragma once
// The tables of launch/scaling, which are part of the program, and what users add to them.

#include <string>

#include "absl/status/statusor.h"
#include "engine/plan/all_reduce_cost.h"
#include "engine/plan/gpu_table.h"
#include "engine/plan/model_table.h"

namespace trireme::client {

/// Text of launch/scaling/*.csv as of the build.
extern const char kGpuTable[];
extern const char kModelTable[];
extern const char kAllReduceTable[];

struct ScalingTables {
  GpuTable gpus;
  ModelTable models;
  AllReduceTable all_reduce;
};

/// The built-in tables and the rows of the user's files, each "" or a path. Errors name the file, line and
/// column.
absl::StatusOr<ScalingTables> load_scaling_tables(const std::string& gpu_file, const std::string& model_file,
                                                  const std::string& all_reduce_file);

}  // namespace trireme::client
