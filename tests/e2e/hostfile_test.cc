// serve.sh --hostfile: what is read, where replicas go, and which hosts are refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

using ::testing::HasSubstr;

class HostfileTest : public ServiceFixture {
 protected:
  std::string write(const std::string& text) {
    const std::filesystem::path path = folder() / "hosts";
    std::ofstream(path) << text;
    return path;
  }

  /// Runs serve.sh to its end.
  CommandResult serve(const std::string& hostfile, std::vector<std::string> options = {}) {
    std::vector<std::string> command = {source("launch/serve.sh"),
                                        "--build",
                                        program("trireme").parent_path(),
                                        "--model",
                                        demo_model(),
                                        "--backend",
                                        "cpu",
                                        "--hostfile",
                                        write(hostfile)};
    command.insert(command.end(), options.begin(), options.end());
    Process& process = start(command);
    CommandResult result;
    result.exit_code = process.wait(deadline_in(30)).value_or(-1);
    result.output = process.output();
    return result;
  }

  /// --device of each replica as mpirun.sh composes its command line, in a line each; empty where there is
  /// none.
  std::string devices(const std::string& hostfile, int tensor_parallel, int replicas,
                      const std::string& backend = "cuda", const std::string& worker_option = "") {
    Process& process = start(
        {"bash", "-c",
         "set -u; cd \"$0\" && . launch/common.sh && . launch/hosts.sh && . launch/mpirun.sh && "
         "mpi_major=4 rsh_agent=ssh network='' run_dir=$2 scratch=$2 mpirun_options=() bin=/bin model=/m "
         "reach_address=a:1 compute_dtype=auto threads=1 tensor_parallel=$3 replicas=$4 backend=$5 "
         "ranks_here=1 placement=() worker_options=($6) && "
         "if [ -s \"$1\" ]; then read_hostfile \"$1\" && place_replicas; else host_names=(); fi && "
         "for ((i = 0; i < replicas; i++)); do worker_command $i; "
         "[[ ${command[*]} =~ --device\\ ([0-9,]+) ]]; echo \"${BASH_REMATCH[1]:-}\"; done",
         source(""), write(hostfile), folder(), std::to_string(tensor_parallel), std::to_string(replicas),
         backend, worker_option});
    EXPECT_EQ(process.wait(deadline_in(20)), 0) << process.output();
    return process.standard_output();
  }

  /// What place_replicas of hosts.sh says: the hosts of each replica, and the ranks of the busiest host.
  std::string place(const std::string& hostfile, int tensor_parallel, int replicas) {
    Process& process =
        start({"bash", "-c",
               "cd \"$0\" && . launch/common.sh && . launch/hosts.sh && read_hostfile \"$1\" && "
               "tensor_parallel=$2 && replicas=$3 && place_replicas && echo \"${placement[*]} $most_ranks\"",
               source(""), write(hostfile), std::to_string(tensor_parallel), std::to_string(replicas)});
    EXPECT_EQ(process.wait(deadline_in(20)), 0) << process.output();
    return process.standard_output();
  }
};

TEST_F(HostfileTest, AReplicaLiesOnOneHostWhereItFits) {
  const std::string three = "# three hosts\nalpha slots=3\nbeta slots = 2 max_slots=4\n\ngamma # one slot";
  EXPECT_EQ(place(three, 1, 6), "alpha:1 alpha:1 beta:1 alpha:1 beta:1 gamma:1 3\n");
  EXPECT_EQ(place(three, 2, 2), "alpha:2 beta:2 2\n");
  EXPECT_EQ(place(three, 2, 3), "alpha:2 beta:2 alpha:1,gamma:1 3\n");
  EXPECT_EQ(place(three, 5, 1), "alpha:3,beta:2 3\n");
  EXPECT_EQ(place("alpha\nbeta\nalpha slots=2", 2, 2), "alpha:2 alpha:1,beta:1 3\n");
}

TEST_F(HostfileTest, ReplicasOfAHostTakeDifferentGpus) {
  EXPECT_EQ(devices("", 2, 3), "0\n2\n4\n");
  EXPECT_EQ(devices("alpha slots=4\nbeta slots=4", 2, 4), "0\n0\n2\n2\n");
  EXPECT_EQ(devices("alpha slots=8\nbeta slots=8", 16, 1), "0\n");
  // The third replica lies on alpha behind the first one, and alone on gamma.
  EXPECT_EQ(devices("alpha slots=3\nbeta slots=2\ngamma", 2, 3), "0\n0\n2,0\n");
  EXPECT_EQ(devices("alpha slots=4", 2, 2, "cpu"), "\n\n");
  EXPECT_EQ(devices("", 1, 1, "cuda", "--device 5"), "5\n");
}

TEST_F(HostfileTest, ALineThatIsNoneIsNamed) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"alpha slots=2\nbeta slot=2\n", "hosts:2: got 'slot=2', wanted slots=N or max_slots=N"},
      {"alpha slots=0", "hosts:1: got 'slots=0', wanted a number from 1 to 9999"},
      {"alpha slots=99999", "got 'slots=99999'"},
      {"alpha slots=3 max_slots=2", "got slots=3, wanted at most max_slots=2"},
      {"alpha 4", "hosts:1: got '4'"},
      {"-oProxyCommand=x slots=2", "hosts:1: got '-oProxyCommand=x', wanted a host's name or IPv4 address"},
      {"# nothing", "names no host"}};
  for (const auto& [text, message] : wrong) {
    const CommandResult run = serve(text);
    EXPECT_EQ(run.exit_code, 2) << text;
    EXPECT_THAT(run.output, HasSubstr(message));
  }
}

TEST_F(HostfileTest, WhatCannotWorkIsRefusedBeforeAnythingStarts) {
  const std::string two = "alpha slots=1\nbeta slots=2";
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong = {
      {{"--tensor-parallel", "2", "--replicas", "2"}, "has 3 slots, 2 replicas of 2 ranks need 4"},
      {{"--insecure"}, "give --listen (or --advertise) the name or address"},
      {{"--listen", "10.0.0.1"}, "type --insecure"},
      {{"--network", "10.0.0.0 /24"}, "--network: got '10.0.0.0 /24', wanted a network such as"}};
  for (const auto& [options, message] : wrong) {
    const CommandResult run = serve(two, options);
    EXPECT_EQ(run.exit_code, 2) << message;
    EXPECT_THAT(run.output, HasSubstr(message));
  }
}

TEST_F(HostfileTest, HostsThatCannotRunRanksAreNamed) {
  const std::filesystem::path agent = folder() / "agent.sh";
  // In place of ssh: a host that is down, one that never answers, one without our programs.
  std::ofstream(agent) << "#!/bin/sh\ncase $1 in\n"
                          "down) echo \"connect to host $1: No route to host\" >&2; exit 255 ;;\n"
                          "silent) exec sleep 60 ;;\n"
                          "empty) echo \"no program /there/trireme-worker\"; exit 3 ;;\nesac\n";
  std::filesystem::permissions(agent, std::filesystem::perms::owner_all);
  const CommandResult run =
      serve("localhost\ndown\nsilent\nempty", {"--tensor-parallel", "4", "--listen", "10.0.0.1", "--insecure",
                                               "--rsh-agent", agent, "--host-timeout", "1"});
  EXPECT_EQ(run.exit_code, 1) << run.output;
  EXPECT_THAT(run.output, HasSubstr("host down: "));
  EXPECT_THAT(run.output, HasSubstr("ended with exit code 255: connect to host down: No route to host"));
  EXPECT_THAT(run.output, HasSubstr("host silent: no answer within 1 s"));
  EXPECT_THAT(run.output, HasSubstr("host empty: it has no program /there/trireme-worker"));
  EXPECT_THAT(run.output, HasSubstr("3 of 4 hosts cannot run"));
  EXPECT_THAT(run.output, ::testing::Not(HasSubstr("host localhost")));
}

}  // namespace
}  // namespace trireme::testing
