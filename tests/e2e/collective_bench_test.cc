// trireme bench collectives under a real mpirun.

#include <gmock/gmock.h>

#include <fstream>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class CollectiveBenchCommandTest : public ServiceFixture {
 protected:
  CommandResult bench(int num_ranks, std::vector<std::string> arguments) {
    std::vector<std::string> command = {"mpirun",     "--oversubscribe",         "--bind-to",        "none",
                                        "-np",        std::to_string(num_ranks), program("trireme"), "bench",
                                        "collectives"};
    command.insert(command.end(), arguments.begin(), arguments.end());
    Process& process = start(command);
    CommandResult result;
    result.exit_code = process.wait(deadline_in(60)).value_or(-1);
    result.output = process.output();
    return result;
  }
};

TEST_F(CollectiveBenchCommandTest, FourRanksGiveOneVerifiedReport) {
  const std::filesystem::path path = folder() / "collectives.json";
  const CommandResult result = bench(4, {"--op", "all_reduce,gather,broadcast", "--sizes", "4KiB:1MiB:x16",
                                         "--samples", "3", "--iterations", "3", "--json", path});
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("mpi on cpu, 4 ranks on 1 host"));
  const json report = json::parse(std::ifstream(path), nullptr, false);
  ASSERT_TRUE(report.is_object()) << result.output;
  EXPECT_EQ(report["num_ranks"], 4);
  ASSERT_EQ(report["operations"].size(), 3u);
  EXPECT_EQ(report["operations"][0]["busbw_factor"], 1.5);
  for (const json& operation : report["operations"]) {
    ASSERT_EQ(operation["sizes"].size(), 3u);
    for (const json& size : operation["sizes"]) {
      EXPECT_EQ(size["num_wrong"], 0);
      EXPECT_EQ(size["same_on_all_ranks"], true);
      EXPECT_GT(size["algbw_gb_s"], 0);
    }
  }
}

TEST_F(CollectiveBenchCommandTest, AWrongCommandLineIsRefusedOnce) {
  const CommandResult sizes = bench(2, {"--sizes", "4KiB:1MiB:*2"});
  EXPECT_EQ(sizes.exit_code, 2) << sizes.output;
  const std::string complaint = "got '*2', wanted a factor of x2 to x1024";
  const size_t first = sizes.output.find(complaint);
  ASSERT_NE(first, std::string::npos) << sizes.output;
  EXPECT_EQ(sizes.output.find(complaint, first + 1), std::string::npos) << sizes.output;

  const CommandResult path = bench(2, {"--json", "/nonexistent/report.json"});
  EXPECT_EQ(path.exit_code, 2) << path.output;
  EXPECT_THAT(path.output, HasSubstr("--json: cannot write /nonexistent/report.json"));
}

}  // namespace
}  // namespace trireme::testing
