// What tests do to kernels: masks that are left out, and other devices that answer when the test wants it.

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/cuda/mask.cuh"
#include "kernels/cuda/ptx.cuh"
#include "tests/simt/run.h"

namespace trireme::testing {

/// Adds up those even elements of in[0, count) that are not the third.
__global__ void add_some(const int* in, int* out, int count) {
  for (int i = static_cast<int>(threadIdx.x); cuda::mask_tail(i, count, 32); i += 32) {
    if (cuda::mask(i % 2 == 0) && cuda::mask(i != 2)) atomicAdd(out, in[i]);
  }
}

/// Tells another device, and writes what that one has answered.
__global__ void tell_and_wait(uint32_t* flags, int* out) {
  cuda::publish(flags, 7);
  cuda::wait_until_published(flags + 1, 7);
  *out = static_cast<int>(flags[2]);
}

namespace {

TEST(SimtGuardTest, OneMaskAfterTheOtherCanBeLeftOut) {
  std::vector<int> in(64, 1000);
  std::fill_n(in.begin(), 40, 1);
  const auto sum = [&](const simt::Options& options) {
    simt::set_options(options);
    int total = 0;
    run(add_some, config(1, 32), in.data(), &total, 40);
    return total;
  };
  simt::Options options;
  simt::forget_masks();
  EXPECT_EQ(sum(options), 19);
  EXPECT_TRUE(simt::mask_places().empty()) << "nobody watches";
  options.watches_masks = true;
  EXPECT_EQ(sum(options), 19);
  std::vector<int> sums;
  for (const simt::MaskPlace& place : simt::mask_places()) {
    EXPECT_TRUE(place.file.ends_with("faults_test.cc"));
    options.without_mask = place;
    sums.push_back(sum(options));
  }
  // Without its tail each thread takes part in both rounds, and in no more.
  EXPECT_EQ(sums, (std::vector<int>{19 + 12 * 1000, 39, 20}));
  simt::forget_masks();
  EXPECT_TRUE(simt::mask_places().empty());
  EXPECT_EQ(sum({.watches_masks = true}), 19);
  EXPECT_EQ(simt::mask_places().size(), 3u);
  simt::set_options({});
}

/// Answers with one more than it has been told.
class Answering final : public simt::OtherDevices {
 public:
  explicit Answering(bool answers) : answers_(answers) { simt::set_other_devices(this); }
  ~Answering() override { simt::set_other_devices(nullptr); }
  void told(const uint32_t* flag, uint32_t value) override { told_ = flag[0] == value ? value : 0; }
  void awaited(uint32_t* flag, uint32_t value) override {
    if (!answers_) return;
    flag[1] = told_ + 1;
    *flag = value;
  }

 private:
  bool answers_;
  uint32_t told_ = 0;
};

TEST(SimtGuardTest, OtherDevicesAnswerWhenTheyAreWaitedFor) {
  Answering others(true);
  std::vector<uint32_t> flags(3);
  int out = 0;
  run(tell_and_wait, config(1, 1), flags.data(), &out);
  EXPECT_EQ(out, 8);
}

TEST(SimtGuardDeathTest, ANumberThatNobodyPublishesIsMissed) {
  Answering others(false);
  std::vector<uint32_t> flags(3);
  int out = 0;
  EXPECT_DEATH(run(tell_and_wait, config(1, 1), flags.data(), &out),
               "waits for a number that nobody publishes");
}

}  // namespace
}  // namespace trireme::testing
