#pragma once
// Runs the `trireme` command and scripts as users do, with a folder for their files.

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/testing/process.h"

namespace trireme::testing {

struct CommandOutcome {
  int exit_code = -1;
  std::string output, standard_output;
};

class CommandFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("trireme-command-test." + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static CommandOutcome run(const std::vector<std::string>& arguments) {
    Process process(arguments, {});
    const auto code = process.wait(deadline_in(60));
    return {code.value_or(-1), process.output(), process.standard_output()};
  }
  static CommandOutcome trireme(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), TRIREME_BIN_DIR "/trireme");
    return run(arguments);
  }
  std::string file(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    return folder_ / name;
  }

 private:
  std::filesystem::path folder_;
};

}  // namespace trireme::testing
