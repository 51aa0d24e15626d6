#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "tests/layering/arrows.h"

namespace trireme::layering {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot = TRIREME_SOURCE_DIR;

/// Sources of the product, as paths from the repository root.
std::vector<std::string> source_files() {
  static const std::set<std::string> kExtensions = {".h", ".cc", ".cu", ".cuh"};
  std::vector<std::string> files;
  for (const char* folder : {"proto", "kernels", "engine", "coordinator", "worker", "launch"}) {
    for (const auto& entry : fs::recursive_directory_iterator(kRoot / folder)) {
      if (kExtensions.contains(entry.path().extension())) files.push_back(fs::relative(entry.path(), kRoot));
    }
  }
  return files;
}

TEST(LayeringTest, IncludesFollowTheArrows) {
  int num_includes = 0;
  for (const std::string& file : source_files()) {
    std::ifstream stream(kRoot / file);
    std::string line;
    while (std::getline(stream, line)) {
      EXPECT_EQ(line_violation(file, line), "");
      const std::string header = included_header(line);
      if (header.empty()) continue;
      ++num_includes;
      EXPECT_EQ(include_violation(file, header), "");
    }
  }
  EXPECT_GT(num_includes, 100) << "the sources were not found under " << kRoot;
}

TEST(LayeringTest, BackwardArrowsAreSeen) {
  EXPECT_NE(include_violation("kernels/cpu/norm.cc", "engine/config.h"), "");
  EXPECT_NE(include_violation("engine/engine.cc", "worker/leader.h"), "");
  EXPECT_NE(include_violation("engine/engine.cc", "proto/support/errors.h"), "");
  EXPECT_NE(include_violation("engine/models/llama.cc", "engine/runner/model_runner.h"), "");
  EXPECT_NE(include_violation("engine/scheduler/scheduler.cc", "kernels/tensor.h"), "");
  EXPECT_NE(include_violation("engine/tokenizer/tokenizer.cc", "engine/scheduler/scheduler.h"), "");
  EXPECT_NE(include_violation("coordinator/router.cc", "engine/engine.h"), "");
  EXPECT_NE(include_violation("coordinator/router.cc", "worker/inbox.h"), "");
  EXPECT_NE(include_violation("launch/client/generate.cc", "engine/engine.h"), "");
}

TEST(LayeringTest, LibrariesStayBehindTheirFiles) {
  EXPECT_NE(include_violation("engine/engine.cc", "mpi.h"), "");
  EXPECT_NE(include_violation("worker/main.cc", "mpi.h"), "");
  EXPECT_NE(include_violation("engine/runner/model_runner.cc", "cuda_runtime.h"), "");
  EXPECT_NE(include_violation("kernels/cuda/gemm.cu", "nccl.h"), "");
  EXPECT_NE(include_violation("engine/request.h", "grpcpp/grpcpp.h"), "");
  EXPECT_NE(include_violation("engine/request.h", "trireme/v1/inference.pb.h"), "");
  EXPECT_NE(include_violation("engine/layers/linear.cc", "oneapi/dnnl/dnnl.hpp"), "");
}

TEST(LayeringTest, ForwardArrowsAreFine) {
  EXPECT_EQ(include_violation("engine/parallel/mpi_group.cc", "mpi.h"), "");
  EXPECT_EQ(include_violation("worker/leader.cc", "engine/engine.h"), "");
  EXPECT_EQ(include_violation("coordinator/cluster_service.cc", "engine/plan/shard_plan.h"), "");
  EXPECT_EQ(include_violation("engine/models/llama.cc", "engine/layers/linear.h"), "");
  EXPECT_EQ(include_violation("engine/engine.cc", "vector"), "");
}

TEST(LayeringTest, IncludesAreReadWhateverTheirForm) {
  EXPECT_EQ(included_header("#include <vector>"), "vector");
  EXPECT_EQ(included_header("  #  include \"engine/config.h\"  // why"), "engine/config.h");
  EXPECT_EQ(included_header("#include_next <x>"), "x");
  EXPECT_EQ(included_header("// #include <x>"), "");
  EXPECT_EQ(included_header("#define X <y>"), "");
  EXPECT_EQ(included_header(""), "");
}

TEST(LayeringTest, ConditionalCompilationIsSeen) {
  EXPECT_NE(line_violation("engine/engine.cc", "#ifdef TRIREME_CUDA"), "");
  EXPECT_NE(line_violation("worker/main.cc", "  #  if 1"), "");
  EXPECT_EQ(line_violation("kernels/cpu/gemm.cc", "#if HWY_ONCE"), "");
  EXPECT_EQ(line_violation("engine/engine.h", "#pragma once"), "");
}

}  // namespace
}  // namespace trireme::layering
