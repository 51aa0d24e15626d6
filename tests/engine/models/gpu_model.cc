#include "tests/engine/models/gpu_model.h"

namespace trireme::testing {

void GpuTest::SetUp() {
  const absl::Status status = create_cuda_backend({}).status();
  if (status.code() == absl::StatusCode::kFailedPrecondition) GTEST_SKIP() << "skipped: " << status.message();
  ASSERT_TRUE(status.ok()) << status;
}

EngineConfig gpu_engine_config(const Reference& reference) {
  EngineConfig config = reference_engine_config(reference);
  config.backend = "cuda";
  config.collectives = "mpi";
  config.max_num_seqs = 8;
  config.max_step_tokens = 24;
  config.kv_memory_bytes = 1 << 20;
  config.num_threads = 2;
  return config;
}

}  // namespace trireme::testing
