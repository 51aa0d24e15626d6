#include "kernels/cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <vector>

#include "gtest/gtest.h"

namespace trireme::cpu {
namespace {

constexpr int64_t kMiB = 1 << 20;

/// A made-up /proc and /sys.
class AvailableMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // The same test may run in several processes at a time, one for each instruction set.
    root_ = std::filesystem::path(::testing::TempDir()) / ("available_memory_" + std::to_string(getpid()));
    std::filesystem::remove_all(root_);
    write("proc/meminfo",
          "MemTotal:       8388608 kB\nMemFree:        1024 kB\nMemAvailable:   4194304 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  int64_t available() const { return available_memory_bytes(root_.string()); }
  std::filesystem::path root_;
};

TEST_F(AvailableMemoryTest, WithoutCgroupItIsMemAvailable) { EXPECT_EQ(available(), 4096 * kMiB); }

TEST_F(AvailableMemoryTest, WithoutProcItIsNothing) {
  std::filesystem::remove_all(root_ / "proc");
  EXPECT_EQ(available(), 0);
}

TEST_F(AvailableMemoryTest, CgroupV2LimitLessUsageBoundsIt) {
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/b/memory.max", "1073741824\n");
  write("sys/fs/cgroup/a/b/memory.current", "536870912\n");
  EXPECT_EQ(available(), 512 * kMiB);
  write("sys/fs/cgroup/a/b/memory.stat", "anon 1\nfile 9\ninactive_file 104857600\n");  // can be reclaimed
  EXPECT_EQ(available(), 612 * kMiB);
  write("sys/fs/cgroup/a/memory.max", "671088640\n");  // the group above is tighter
  write("sys/fs/cgroup/a/memory.current", "603979776\n");
  EXPECT_EQ(available(), 64 * kMiB);
  write("sys/fs/cgroup/a/memory.current", "1603979776\n");  // above its limit
  EXPECT_EQ(available(), 0);
}

TEST_F(AvailableMemoryTest, NoLimitIsNoBound) {
  write("proc/self/cgroup", "0::/a\n");
  write("sys/fs/cgroup/a/memory.max", "max\n");
  write("sys/fs/cgroup/a/memory.current", "536870912\n");
  EXPECT_EQ(available(), 4096 * kMiB);
}

TEST_F(AvailableMemoryTest, APathHiddenByANamespaceLeavesTheGroupsAbove) {
  write("proc/self/cgroup", "0::/not/there\n");
  write("sys/fs/cgroup/memory.max", "209715200\n");
  write("sys/fs/cgroup/memory.current", "104857600\n");
  EXPECT_EQ(available(), 100 * kMiB);
}

TEST_F(AvailableMemoryTest, CgroupV1LimitBoundsIt) {
  write("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/job\n1:name=systemd:/\n");
  write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "1073741824\n");
  write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "1048576000\n");
  write("sys/fs/cgroup/memory/job/memory.stat", "inactive_file 5\ntotal_inactive_file 104857600\n");
  EXPECT_EQ(available(), 124 * kMiB);
}

TEST(HostMemoryTest, IsZeroedAndAligned) {
  for (const size_t bytes : {size_t{1}, size_t{4097}, size_t{5} << 20}) {
    auto memory = HostMemory::allocate(bytes, 2, "a test");
    ASSERT_TRUE(memory.ok()) << memory.status();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->data()) % 64, 0u);
    const char* data = static_cast<const char*>(memory->data());
    for (size_t i = 0; i < bytes; ++i) ASSERT_EQ(data[i], 0);
  }
}

TEST(HostMemoryTest, SparseMemoryTakesNoPageBeforeItIsWritten) {
  constexpr size_t kBytes = size_t{64} << 20;
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  auto memory = HostMemory::allocate_sparse(kBytes, "a test");
  ASSERT_TRUE(memory.ok()) << memory.status();
  const auto resident = [&] {
    std::vector<unsigned char> pages(kBytes / page);
    EXPECT_EQ(mincore(memory->data(), kBytes, pages.data()), 0);
    return std::count_if(pages.begin(), pages.end(), [](unsigned char state) { return (state & 1) != 0; });
  };
  EXPECT_EQ(resident(), 0);
  char* data = static_cast<char*>(memory->data());
  data[kBytes / 2] = 1;
  EXPECT_EQ(resident(), 1);
  EXPECT_EQ(data[kBytes / 2 - 1], 0);
}

TEST(HostMemoryTest, MoreThanThereIsGivesWantedAndAvailable) {
  for (const size_t bytes : {size_t{1} << 50, ~size_t{0} - 5}) {
    const auto memory = HostMemory::allocate(bytes, 2, "a test");
    ASSERT_FALSE(memory.ok());
    EXPECT_EQ(memory.status().code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(memory.status().message().find("a test: wanted " + std::to_string(bytes)), std::string::npos)
        << memory.status();
  }
}

TEST(WorkspaceTest, GrowsAndStays) {
  Workspace workspace;
  void* first = workspace.get(1000, 1);
  EXPECT_EQ(workspace.get(500, 1), first);
  ASSERT_TRUE(workspace.reserve(1 << 20, 1).ok());
  void* second = workspace.get(1 << 20, 1);
  EXPECT_EQ(workspace.get(1000, 1), second);
  EXPECT_EQ(workspace.bytes(), size_t{1} << 20);
}

}  // namespace
}  // namespace trireme::cpu
