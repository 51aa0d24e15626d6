// The loader with the CPU backend: what `embedding` reads back from a packed weight is what the file holds.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "engine/weights/weight_loader.h"
#include "kernels/float_conversion.h"

namespace trireme {
namespace {

constexpr const char* kReferences = TRIREME_TEST_DATA "/../models/references/";

std::vector<float> rows_of(Backend& backend, const Weight& weight) {
  const int64_t rows = weight.out_features(), cols = weight.in_features();
  std::vector<int32_t> ids(static_cast<size_t>(rows));
  std::iota(ids.begin(), ids.end(), 0);
  std::vector<float> values(static_cast<size_t>(rows * cols));
  backend.embedding(Tensor(ids.data(), DType::i32, 1, rows), weight, 0,
                    Tensor(values.data(), DType::f32, rows, cols));
  return values;
}

std::vector<float> read_whole(const Checkpoint& checkpoint, const std::string& name) {
  const TensorEntry& entry = *checkpoint.find(name).value();
  std::vector<char> bytes(entry.bytes);
  EXPECT_TRUE(checkpoint.read(entry, name, 0, bytes.data(), bytes.size()).ok());
  const auto count = static_cast<int64_t>(entry.bytes / dtype_bytes(*entry.dtype));
  std::vector<float> values(static_cast<size_t>(count));
  convert_to_f32(bytes.data(), *entry.dtype, count, values.data());
  return values;
}

class CpuBackendLoadTest : public ::testing::TestWithParam<const char*> {};

TEST_P(CpuBackendLoadTest, EveryMatrixReadsBackFromBothRanksHalves) {
  auto backend = create_cpu_backend({.num_threads = 2});
  ASSERT_TRUE(backend.ok()) << backend.status();
  const auto checkpoint = Checkpoint::open(std::string(kReferences) + GetParam());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  for (const auto& [name, entry] : (*checkpoint)->tensors()) {
    if (entry.shape.size() != 2) continue;
    const int64_t rows = entry.shape[0], cols = entry.shape[1];
    std::vector<Parameter> halves(2);
    for (int64_t rank = 0; rank < 2; ++rank) {
      TensorSlice slice;
      slice.name = name;
      slice.tensor_rows = slice.num_rows = rows;
      slice.tensor_cols = cols;
      slice.col = rank * cols / 2;
      slice.num_cols = cols / 2;
      halves[static_cast<size_t>(rank)].rows = rows;
      halves[static_cast<size_t>(rank)].cols = cols / 2;
      halves[static_cast<size_t>(rank)].slices = {slice};
    }
    LoadStats stats;
    const absl::Status status =
        load_parameters(**checkpoint, {&halves[0], &halves[1]}, DType::f32, **backend, 3, &stats, 1000);
    ASSERT_TRUE(status.ok()) << status;
    const std::vector<float> wanted = read_whole(**checkpoint, name);
    for (size_t rank = 0; rank < 2; ++rank) {
      const std::vector<float> got = rows_of(**backend, *halves[rank].weight);
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols / 2; ++c) {
          ASSERT_EQ(got[static_cast<size_t>(r * (cols / 2) + c)],
                    wanted[static_cast<size_t>(r * cols + static_cast<int64_t>(rank) * cols / 2 + c)])
              << name;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(References, CpuBackendLoadTest,
                         ::testing::Values("llama_tied", "llama3_rope", "qwen2"),
                         [](const auto& instance) { return std::string(instance.param); });

}  // namespace
}  // namespace trireme
