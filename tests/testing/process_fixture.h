#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/testing/process.h"
#include "tests/testing/process_table.h"

namespace trireme::testing {

/// A test with processes of its own. Each test gets an empty folder, and each process one in it that is its
/// TMPDIR, the place of Open MPI's session files and of its shared memory. A test fails when, after it has
/// ended what it started, a process of it is still alive or one of those files is still there.
class ProcessFixture : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  /// Starts a program; the fixture keeps it until it is forgotten or the test ends.
  Process& start(const std::vector<std::string>& argv, std::map<std::string, std::string> environment = {});
  /// TERM, then KILL at the deadline; then destroyed. Returns the exit code.
  int stop(Process& process, double seconds = 20);
  /// Processes of this test by program name, however they were started.
  std::vector<ProcessEntry> processes(const std::string& name) const;
  const std::filesystem::path& folder() const { return folder_; }

  /// How long what is ending may take to be gone: ranks whose mpirun was killed need two seconds.
  double leftover_seconds_ = 5;
  /// Set by a test after which Open MPI's shared memory may stay.
  bool shared_memory_may_stay_ = false;

 private:
  void expect_nothing_left();

  std::filesystem::path folder_;
  std::string marker_;
  int num_started_ = 0;
  std::vector<std::unique_ptr<Process>> children_;
};

}  // namespace trireme::testing
