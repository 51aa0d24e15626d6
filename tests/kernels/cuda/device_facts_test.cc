#include "kernels/cuda/device_facts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme::cuda {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// A GPU that nothing is wrong with.
DeviceFacts hopper() {
  DeviceFacts facts;
  facts.driver_version = 13000;
  facts.runtime_version = 13000;
  facts.num_devices = 2;
  facts.ordinal = 1;
  facts.name = "NVIDIA H200";
  facts.major = 9;
  facts.minor = 0;
  facts.total_bytes = int64_t{141} << 30;
  facts.free_bytes = int64_t{140} << 30;
  return facts;
}

absl::StatusOr<std::vector<std::string>> judge(const DeviceFacts& facts,
                                               const std::string& build = "80;89;90a-real;90-virtual") {
  return judge_device(facts, *parse_architectures(build));
}

void expect_refused(const DeviceFacts& facts, absl::StatusCode code, const std::vector<std::string>& words,
                    const std::string& build = "80;89;90a-real;90-virtual") {
  const auto judged = judge(facts, build);
  ASSERT_FALSE(judged.ok());
  EXPECT_EQ(judged.status().code(), code);
  for (const std::string& word : words) EXPECT_THAT(std::string(judged.status().message()), HasSubstr(word));
}

TEST(DeviceFactsTest, ADeviceThatFitsIsTakenWithoutAWord) {
  const auto judged = judge(hopper());
  ASSERT_TRUE(judged.ok()) << judged.status();
  EXPECT_THAT(*judged, IsEmpty());
  EXPECT_EQ(describe_device(hopper()).find("NVIDIA H200, compute capability 9.0, "), 0u);
}

TEST(DeviceFactsTest, AMissingDriverIsNamed) {
  DeviceFacts facts;
  facts.runtime_version = 13000;
  facts.opened = OpenResult::driver_too_old;  // what the runtime calls it
  expect_refused(facts, absl::StatusCode::kFailedPrecondition,
                 {"no NVIDIA driver", "libcuda.so.1", "CUDA 13.0"});
}

TEST(DeviceFactsTest, AnOldDriverIsNamedWithBothVersions) {
  DeviceFacts facts = hopper();
  facts.driver_version = 12040;
  facts.opened = OpenResult::driver_too_old;
  expect_refused(facts, absl::StatusCode::kFailedPrecondition, {"too old", "CUDA 12.4", "CUDA 13.0"});
  facts = hopper();
  facts.runtime_version = 13010;  // of the same major version: runs
  EXPECT_TRUE(judge(facts).ok());
}

TEST(DeviceFactsTest, NoGpuTellsWhatHidesThem) {
  DeviceFacts facts = hopper();
  facts.num_devices = 0;
  facts.opened = OpenResult::no_device;
  expect_refused(facts, absl::StatusCode::kFailedPrecondition, {"no NVIDIA GPU is visible"});
  facts.visible_devices = "-1";
  expect_refused(facts, absl::StatusCode::kFailedPrecondition, {"CUDA_VISIBLE_DEVICES is -1"});
}

TEST(DeviceFactsTest, ADriverThatDoesNotStartTellsWhyInsteadOfThatItHasNoGpu) {
  DeviceFacts facts;
  facts.driver_version = facts.runtime_version = 13000;
  facts.opened = OpenResult::not_ready;
  facts.error = "system not yet initialized (cudaErrorSystemNotReady)";
  expect_refused(facts, absl::StatusCode::kUnavailable, {facts.error, "nvidia-fabricmanager"});
  facts.opened = OpenResult::failed;
  facts.error = "system has unsupported display driver / cuda driver combination";
  expect_refused(facts, absl::StatusCode::kInternal, {"does not start", facts.error});
}

TEST(DeviceFactsTest, ADeviceBeyondTheLastNamesTheRange) {
  DeviceFacts facts = hopper();
  facts.ordinal = 2;
  expect_refused(facts, absl::StatusCode::kFailedPrecondition, {"GPU 2", "0 to 1", "--device"});
}

TEST(DeviceFactsTest, ABusyDeviceIsUnavailable) {
  DeviceFacts facts = hopper();
  facts.opened = OpenResult::busy;
  facts.error = "all CUDA-capable devices are busy or unavailable";
  facts.exclusive = true;
  expect_refused(facts, absl::StatusCode::kUnavailable,
                 {"GPU 1 (NVIDIA H200) is busy", facts.error, "exclusive"});
  facts.opened = OpenResult::open;
  facts.prohibited = true;
  expect_refused(facts, absl::StatusCode::kFailedPrecondition, {"forbids computing"});
}

TEST(DeviceFactsTest, ABrokenDeviceIsNotTriedFurther) {
  DeviceFacts facts = hopper();
  facts.opened = OpenResult::broken;
  facts.error = "uncorrectable ECC error encountered (cudaErrorECCUncorrectable)";
  expect_refused(facts, absl::StatusCode::kInternal, {"GPU 1", "broken", facts.error, "reset"});
  facts.opened = OpenResult::failed;
  facts.error = "unknown error";
  expect_refused(facts, absl::StatusCode::kInternal, {"cannot be opened: unknown error"});
}

TEST(DeviceFactsTest, MachineCodeRunsOnNewerMinorVersionsOnly) {
  DeviceFacts facts = hopper();
  for (const auto& [major, minor, build] :
       std::vector<std::tuple<int, int, std::string>>{{8, 0, "80-real"},
                                                      {8, 6, "80-real"},
                                                      {8, 9, "80-real;90a-real"},
                                                      {9, 0, "90a-real"},
                                                      {9, 0, "90-real"},
                                                      {10, 3, "100f-real"}}) {
    facts.major = major;
    facts.minor = minor;
    const auto judged = judge(facts, build);
    ASSERT_TRUE(judged.ok()) << judged.status();
    EXPECT_THAT(*judged, IsEmpty()) << build;
  }
  for (const auto& [major, minor, build] :
       std::vector<std::tuple<int, int, std::string>>{{8, 0, "86-real"},
                                                      {9, 0, "80-real;89-real"},
                                                      {10, 0, "90a"},
                                                      {10, 3, "100a-real"},
                                                      {12, 0, "100f"}}) {
    facts.major = major;
    facts.minor = minor;
    expect_refused(facts, absl::StatusCode::kFailedPrecondition,
                   {"GPU 1 (NVIDIA H200) has compute capability " + std::to_string(major), "this build has ",
                    "-DCMAKE_CUDA_ARCHITECTURES=" + std::to_string(10 * major + minor)},
                   build);
  }
}

TEST(DeviceFactsTest, TheErrorNamesWhatTheBuildHas) {
  DeviceFacts facts = hopper();
  facts.major = 8;
  expect_refused(facts, absl::StatusCode::kFailedPrecondition, {"sm_90a and PTX of compute_90"},
                 "90a-real;90-virtual");
  expect_refused(facts, absl::StatusCode::kFailedPrecondition, {"sm_89, sm_90a and no PTX"},
                 "89-real;90a-real");
}

TEST(DeviceFactsTest, NewerDevicesTranslatePtxAndAreTold) {
  DeviceFacts facts = hopper();
  facts.major = 12;
  const auto judged = judge(facts);
  ASSERT_TRUE(judged.ok()) << judged.status();
  EXPECT_THAT(*judged, ElementsAre(AllOf(HasSubstr("translates the PTX"), HasSubstr("ARCHITECTURES=120"))));
  // PTX of a newer toolkit is beyond an older driver's translator.
  facts.runtime_version = 13010;
  expect_refused(facts, absl::StatusCode::kFailedPrecondition,
                 {"CUDA 13.0, cannot translate PTX of CUDA 13.1"});
}

TEST(DeviceFactsTest, DevicesWithoutTheInstructionsAreRefusedWhateverTheBuild) {
  DeviceFacts facts = hopper();
  facts.major = 7;
  facts.minor = 5;
  expect_refused(facts, absl::StatusCode::kFailedPrecondition, {"capability 7.5", "need 8.0"}, "75");
}

TEST(DeviceFactsTest, MemoryThatOthersHoldAndMemoryErrorsAreTold) {
  DeviceFacts facts = hopper();
  facts.free_bytes = int64_t{30} << 30;
  facts.uncorrected_ecc_errors = 3;
  const auto judged = judge(facts);
  ASSERT_TRUE(judged.ok());
  EXPECT_THAT(*judged,
              ElementsAre(HasSubstr("3 uncorrected memory errors"), HasSubstr("30.0 GiB of 141.0 GiB")));
}

TEST(DeviceFactsTest, ArchitecturesAreThoseOfCMake) {
  const auto build = parse_architectures("80,90a-real;100f-virtual");
  ASSERT_TRUE(build.ok());
  ASSERT_EQ(build->size(), 3u);
  EXPECT_TRUE((*build)[0].machine_code && (*build)[0].ptx);
  EXPECT_TRUE((*build)[1].machine_code && !(*build)[1].ptx && (*build)[1].suffix == 'a');
  EXPECT_TRUE(!(*build)[2].machine_code && (*build)[2].ptx && (*build)[2].suffix == 'f');
  for (const char* wrong : {"", "80;", "native", "90b", "-real", "9", "80-realistic"}) {
    const auto none = parse_architectures(wrong);
    ASSERT_FALSE(none.ok()) << wrong;
    EXPECT_THAT(std::string(none.status().message()), HasSubstr("CUDA architecture: got '"));
  }
}

}  // namespace
}  // namespace trireme::cuda
