#pragma once
// The tables that are part of the program, for tests of what reads them.

#include <gtest/gtest.h>

#include <string>

#include "engine/plan/all_reduce_cost.h"
#include "engine/plan/csv_table.h"
#include "engine/plan/gpu_table.h"
#include "engine/plan/model_table.h"

namespace trireme::testing {

inline std::string scaling_file(const std::string& name) {
  return std::string(TRIREME_TEST_DATA) + "/../../../launch/scaling/" + name;
}

template <typename Table>
Table scaling_table(const std::string& name) {
  Table table;
  const auto text = read_table_file(scaling_file(name));
  EXPECT_TRUE(text.ok()) << text.status();
  const absl::Status added = text.ok() ? table.add(*text, name) : text.status();
  EXPECT_TRUE(added.ok()) << added;
  return table;
}
inline GpuTable gpu_table() { return scaling_table<GpuTable>("gpus.csv"); }
inline ModelTable model_table() { return scaling_table<ModelTable>("models.csv"); }
inline AllReduceTable all_reduce_table() { return scaling_table<AllReduceTable>("all_reduce.csv"); }

}  // namespace trireme::testing
