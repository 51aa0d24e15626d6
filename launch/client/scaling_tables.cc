#include "launch/client/scaling_tables.h"

#include "engine/plan/csv_table.h"

namespace trireme::client {
namespace {

template <typename Table>
absl::Status fill(Table& table, const char* built_in, const char* name, const std::string& file) {
  if (absl::Status added = table.add(built_in, name); !added.ok()) return added;
  if (file.empty()) return absl::OkStatus();
  auto text = read_table_file(file);
  if (!text.ok()) return text.status();
  return table.add(*text, file);
}

}  // namespace

absl::StatusOr<ScalingTables> load_scaling_tables(const std::string& gpu_file, const std::string& model_file,
                                                  const std::string& all_reduce_file) {
  ScalingTables tables;
  absl::Status status = fill(tables.gpus, kGpuTable, "launch/scaling/gpus.csv", gpu_file);
  status.Update(fill(tables.models, kModelTable, "launch/scaling/models.csv", model_file));
  status.Update(fill(tables.all_reduce, kAllReduceTable, "launch/scaling/all_reduce.csv", all_reduce_file));
  if (!status.ok()) return status;
  return tables;
}

}  // namespace trireme::client
