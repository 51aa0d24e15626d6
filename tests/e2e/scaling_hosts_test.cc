// launch/scaling/run.sh over several hosts.

#include <gtest/gtest.h>

#include <fstream>

#include "tests/e2e/virtual_hosts.h"

namespace trireme::testing {
namespace {

class ScalingHostsTest : public VirtualHostsFixture {
 protected:
  Process& sweep(const std::string& hosts, std::vector<std::string> options) {
    std::ofstream(folder() / "hosts") << hosts;
    std::vector<std::string> command = {source("launch/scaling/run.sh"),
                                        "--model",
                                        demo_model(),
                                        "--out",
                                        folder() / "scaling",
                                        "--build",
                                        program("trireme").parent_path(),
                                        "--workload",
                                        "random:16,8",
                                        "--concurrency",
                                        "2",
                                        "--requests",
                                        "4",
                                        "--repeat",
                                        "1",
                                        "--hostfile",
                                        folder() / "hosts",
                                        "--network",
                                        kNetwork,
                                        "--listen",
                                        address_of("alpha"),
                                        "--insecure",
                                        "--rsh-agent",
                                        rsh_agent(),
                                        "--serve-option=--worker-option",
                                        "--serve-option=--kv-memory=16MiB"};
    command.insert(command.end(), options.begin(), options.end());
    return start(on("alpha", command));
  }
};

TEST_F(ScalingHostsTest, RanksOfALayoutOnTwoHostsAreMeasured) {
  add_hosts({"alpha", "beta"});
  const int64_t before = bytes_through("beta");
  Process& script = sweep(address_of("alpha") + "\n" + address_of("beta") + "\n",
                          {"--devices", "1,2", "--threads-per-rank", "1"});
  ASSERT_EQ(script.wait(deadline_in(120)), 0) << script.output();
  EXPECT_GT(bytes_through("beta"), before + 10'000);
  EXPECT_TRUE(workers_on("alpha").empty());
  EXPECT_TRUE(workers_on("beta").empty());
  std::ifstream file(folder() / "scaling/report.json");
  const auto report = nlohmann::json::parse(file, nullptr, false);
  ASSERT_EQ(report["rows"].size(), 2) << script.output();
  const nlohmann::json& ranks = report["rows"][1]["ranks"];
  ASSERT_EQ(ranks.size(), 2) << report["rows"][1].dump(1);
  EXPECT_EQ(ranks[0]["host"], "alpha");
  EXPECT_EQ(ranks[1]["host"], "beta");
  for (const nlohmann::json& rank : ranks) EXPECT_GT(rank["phases"]["compute"], 0) << rank.dump(1);
}

TEST_F(ScalingHostsTest, WhatTheHostsCannotHoldIsSaidBeforeAnythingStarts) {
  add_hosts({"alpha", "beta"});
  const std::string both = address_of("alpha") + "\n" + address_of("beta") + "\n";
  Process& silent = sweep(both + "10.77.0.99\n", {"--devices", "1,3"});
  EXPECT_EQ(silent.wait(deadline_in(30)), 2) << silent.output();
  EXPECT_NE(silent.output().find("host 10.77.0.99: "), std::string::npos) << silent.output();
  Process& crowded = sweep(both, {"--devices", "1,2,3"});
  EXPECT_EQ(crowded.wait(deadline_in(30)), 2) << crowded.output();
  EXPECT_NE(crowded.output().find("has 2 slots, 1 replicas of 3 ranks need 3"), std::string::npos)
      << crowded.output();
  EXPECT_FALSE(std::filesystem::exists(folder() / "scaling"));
}

}  // namespace
}  // namespace trireme::testing
