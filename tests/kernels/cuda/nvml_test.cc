#include "kernels/cuda/nvml.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

namespace trireme::cuda {
namespace {

TEST(NvmlTest, AMachineWithoutTheLibraryHasNone) {
  EXPECT_EQ(Nvml::open("libno-such-library.so.1"), nullptr);
}

TEST(NvmlTest, ALibraryWithoutTheFunctionsIsNone) { EXPECT_EQ(Nvml::open("libm.so.6"), nullptr); }

TEST(NvmlTest, ADeviceIsFoundByItsBusAndWhatItDoesNotTellIsEmpty) {
  const auto nvml = Nvml::open(TRIREME_FAKE_NVML);
  ASSERT_NE(nvml, nullptr) << dlerror();
  EXPECT_EQ(nvml->driver_version(), "580.65.06");
  EXPECT_FALSE(nvml->sample("0000:99:00.0").has_value());
  const auto sample = nvml->sample("0000:1b:00.0");
  ASSERT_TRUE(sample.has_value());
  EXPECT_EQ(sample->gpu_percent, 97);
  EXPECT_EQ(sample->memory_percent, 61);
  EXPECT_EQ(sample->uncorrected_ecc_errors, 5);
  EXPECT_FALSE(sample->power_watts.has_value());
}

TEST(NvmlTest, TheLibraryIsShutDownInTheEnd) {
  void* fake = dlopen(TRIREME_FAKE_NVML, RTLD_NOW);
  ASSERT_NE(fake, nullptr) << dlerror();
  const auto num_users = reinterpret_cast<int (*)()>(dlsym(fake, "fake_num_users"));
  ASSERT_NE(num_users, nullptr);
  {
    const auto nvml = Nvml::open(TRIREME_FAKE_NVML);
    EXPECT_EQ(num_users(), 1);
  }
  EXPECT_EQ(num_users(), 0);
  dlclose(fake);
}

}  // namespace
}  // namespace trireme::cuda
