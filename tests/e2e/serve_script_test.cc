// launch/serve.sh from the outside.

#include <gtest/gtest.h>

#include <csignal>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

class ServeScriptE2eTest : public ServiceFixture {
 protected:
  Process& serve(std::vector<std::string> options) {
    std::vector<std::string> command = {source("launch/serve.sh"),
                                        "--build",
                                        program("trireme").parent_path(),
                                        "--backend",
                                        "cpu",
                                        "--compute-dtype",
                                        "f32",
                                        "--worker-option=--kv-memory",
                                        "--worker-option=64MiB"};
    command.insert(command.end(), options.begin(), options.end());
    return start(command);
  }

  /// Waits for the line "ready ADDRESS in ..." and calls there from then on.
  void wait_ready(Process& server) {
    ASSERT_TRUE(server.wait_for_output("ready 127.0.0.1:", deadline_in(60))) << server.output();
    ASSERT_TRUE(server.wait_for_output("logs in", deadline_in(10))) << server.output();
    const std::string output = server.standard_output();
    set_address(output.substr(6, output.find(' ', 6) - 6));
  }

  static std::filesystem::path scratch_of(const Process& server) {
    return "/dev/shm/trireme." + std::to_string(server.pid());
  }
};

TEST_F(ServeScriptE2eTest, ServesReplicasAndStopsThemAll) {
  Process& server =
      serve({"--model", demo_model(), "--tensor-parallel", "2", "--replicas", "2", "--port", "0"});
  wait_ready(server);
  for (const char* line : {"metrics coordinator http://127.0.0.1:", "metrics replica-0 http://127.0.0.1:",
                           "metrics replica-1 http://127.0.0.1:"})
    EXPECT_TRUE(server.wait_for_output(line, deadline_in(10))) << server.output();
  EXPECT_EQ(cluster().replicas_size(), 2);
  EXPECT_EQ(processes("trireme-worker").size(), 4);
  const CommandResult run = generate({"--prompt", "In the beginning", "--max-tokens", "16"});
  EXPECT_EQ(run.exit_code, 0) << run.output;
  server.signal(SIGTERM);
  EXPECT_EQ(server.wait(deadline_in(30)), 0) << server.output();
  EXPECT_TRUE(processes("trireme-worker").empty());
  EXPECT_TRUE(processes("trireme-coordinator").empty());
  EXPECT_FALSE(std::filesystem::exists(scratch_of(server)));
}

TEST_F(ServeScriptE2eTest, AKilledReplicaComesBackByItself) {
  Process& server = serve({"--model", demo_model(), "--tensor-parallel", "2", "--port", "0"});
  wait_ready(server);
  const std::string first = cluster().replicas(0).incarnation();
  kill(ranks()[1].pid, SIGKILL);
  wait_for_cluster(
      "a new incarnation serves",
      [&](const v1::GetClusterResponse& now) {
        return now.replicas_size() == 1 && now.replicas(0).state() == v1::REPLICA_STATE_SERVING &&
               now.replicas(0).incarnation() != first;
      },
      60);
  const CommandResult run = generate({"--prompt", "In the beginning", "--max-tokens", "8"});
  EXPECT_EQ(run.exit_code, 0) << run.output;
}

TEST_F(ServeScriptE2eTest, AStreamOutlivesItsOnlyReplica) {
  Process& server = serve({"--model", demo_model(), "--tensor-parallel", "2", "--port", "0",
                           "--coordinator-option=--resume-timeout", "--coordinator-option=60"});
  wait_ready(server);
  const pid_t leader = ranks()[0].pid;
  const auto stub = inference_stub();
  const v1::GenerateRequest request = greedy_request("In the beginning", 200);
  Stream broken(*stub, request);
  ASSERT_TRUE(broken.read_tokens(1));
  kill(leader, SIGKILL);
  const grpc::Status status = broken.finish();
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(cluster().requests_resumed(), 1);
  Stream unbroken(*stub, request);
  EXPECT_TRUE(unbroken.finish().ok());
  EXPECT_EQ(broken.result().completions(0).text(), unbroken.result().completions(0).text());
  EXPECT_EQ(broken.token_ids(), unbroken.token_ids());
}

TEST_F(ServeScriptE2eTest, ItsOwnDeathEndsEverything) {
  Process& server = serve({"--model", demo_model(), "--tensor-parallel", "2", "--port", "0", "--run-dir",
                           (folder() / "run").string()});
  wait_ready(server);
  const std::vector<Rank> all = ranks();
  ASSERT_EQ(all.size(), 2);
  server.signal(SIGKILL);
  EXPECT_EQ(server.wait(deadline_in(10)), 128 + SIGKILL);
  for (const Rank& rank : all) EXPECT_TRUE(wait_until_gone(rank.pid, deadline_in(20))) << rank.rank;
  for (const ProcessEntry& entry : processes("trireme-coordinator")) {
    EXPECT_TRUE(wait_until_gone(entry.pid, deadline_in(20)));
  }
  for (const ProcessEntry& entry : processes("mpirun"))
    EXPECT_TRUE(wait_until_gone(entry.pid, deadline_in(20)));
  // What it could not take away, the next one sweeps.
  EXPECT_TRUE(std::filesystem::exists(scratch_of(server)));
  wait_ready(serve({"--model", demo_model(), "--tensor-parallel", "1", "--port", "0"}));
  EXPECT_FALSE(std::filesystem::exists(scratch_of(server)));
}

TEST_F(ServeScriptE2eTest, APortInUseIsSaid) {
  start_coordinator();
  Process& server = serve({"--model", demo_model(), "--port", address().substr(address().find(':') + 1)});
  EXPECT_EQ(server.wait(deadline_in(60)), 1);
  EXPECT_NE(server.output().find(address()), std::string::npos) << server.output();
  EXPECT_NE(server.output().find("the coordinator ended"), std::string::npos) << server.output();
}

TEST_F(ServeScriptE2eTest, AWorkerThatCannotStartEndsItWithTheReason) {
  const auto broken = folder() / "broken-model";
  std::filesystem::create_directory(broken);
  for (const char* name : {"config.json", "tokenizer.json", "generation_config.json"}) {
    std::filesystem::copy_file(demo_model() / name, broken / name);
  }
  std::filesystem::copy_file(demo_model() / "model.safetensors", broken / "model.safetensors");
  std::filesystem::resize_file(broken / "model.safetensors", 1 << 20);
  Process& server = serve({"--model", broken, "--tensor-parallel", "2", "--port", "0"});
  EXPECT_EQ(server.wait(deadline_in(60)), 1) << server.output();
  EXPECT_NE(server.output().find("model.safetensors"), std::string::npos) << server.output();
  EXPECT_TRUE(processes("trireme-worker").empty());
}

TEST_F(ServeScriptE2eTest, WrongOptionsAreNamed) {
  const std::vector<std::vector<std::string>> wrong = {{},
                                                       {"--model", "/nonexistent"},
                                                       {"--model", demo_model(), "--replicas", "0"},
                                                       {"--model", demo_model(), "--tensor-parallel", "x"},
                                                       {"--model", demo_model(), "--port", "70000"},
                                                       {"--model", demo_model(), "--unknown", "1"}};
  for (const auto& options : wrong) {
    Process& server = serve(options);
    EXPECT_EQ(server.wait(deadline_in(20)), 2) << server.output();
    EXPECT_NE(server.output().find("serve.sh: "), std::string::npos);
  }
}

}  // namespace
}  // namespace trireme::testing
