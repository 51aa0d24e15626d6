#include "engine/backend_choice.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StartsWith;

absl::StatusOr<ChosenBackend> choose(const std::string& backend, std::vector<std::string>& notes) {
  return choose_backend({backend, 0, 1, DType::f32}, notes);
}

class BackendChoiceTest : public ::testing::Test {
 protected:
  bool gpu_is_usable() {
    std::vector<std::string> notes;
    return choose("cuda", notes).ok();
  }
  std::vector<std::string> notes_;
};

TEST_F(BackendChoiceTest, TheCpuIsThereForTheAsking) {
  const auto backend = choose("cpu", notes_);
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_EQ(backend->backend->name(), "cpu");
  EXPECT_TRUE(shares_host_memory(*backend->backend));
  EXPECT_THAT(notes_, IsEmpty());
}

TEST_F(BackendChoiceTest, CudaWithoutAGpuIsRefusedWithTheReason) {
  if (gpu_is_usable()) GTEST_SKIP() << "there is a GPU";
  const auto backend = choose("cuda", notes_);
  ASSERT_FALSE(backend.ok());
  const std::string message(backend.status().message());
  EXPECT_THAT(message, StartsWith("--backend cuda: "));
  EXPECT_GT(message.size(), 30u);
}

TEST_F(BackendChoiceTest, AutoWithoutAGpuIsTheCpuAndSaysWhy) {
  if (gpu_is_usable()) GTEST_SKIP() << "there is a GPU";
  const auto refused = choose("cuda", notes_);
  const auto backend = choose("auto", notes_);
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_EQ(backend->backend->name(), "cpu");
  const std::string reason =
      std::string(refused.status().message()).substr(std::string("--backend cuda: ").size());
  EXPECT_THAT(notes_, ElementsAre("backend auto: the CPU, since " + reason));
}

TEST_F(BackendChoiceTest, AutoWithAGpuIsTheGpu) {
  if (!gpu_is_usable()) GTEST_SKIP() << "no GPU";
  const auto backend = choose("auto", notes_);
  ASSERT_TRUE(backend.ok()) << backend.status();
  EXPECT_EQ(backend->backend->name(), "cuda");
  EXPECT_FALSE(shares_host_memory(*backend->backend));
}

TEST_F(BackendChoiceTest, OtherWordsAreRefused) {
  const auto backend = choose("tpu", notes_);
  EXPECT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend.status().message(), "backend: got 'tpu', wanted auto, cpu or cuda");
}

}  // namespace
}  // namespace trireme
