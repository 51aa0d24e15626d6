#pragma once
// The reference models on the CUDA backend.

#include <gtest/gtest.h>

#include "tests/engine/models/reference_model.h"

namespace trireme::testing {

/// Skips where there is no device.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override;
};

/// In f32, with a small cache; collectives staged over the host where there are several ranks.
EngineConfig gpu_engine_config(const Reference& reference);

}  // namespace trireme::testing
