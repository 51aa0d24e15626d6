// The program itself: flags, the line it prints, signals.

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/coordinator/test_cluster.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

/// A trireme-coordinator of its own. Killed with the test at the latest.
class Process {
 public:
  explicit Process(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), TRIREME_COORDINATOR);
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    int out[2], err[2];
    EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(err, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0) {  // only async-signal-safe calls from here on
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(out[1], STDOUT_FILENO);
      dup2(err[1], STDERR_FILENO);
      execv(argv[0], argv.data());
      _exit(127);
    }
    close(out[1]);
    close(err[1]);
    out_ = out[0];
    err_ = err[0];
  }
  ~Process() {
    if (!ended_) signal(SIGKILL);
    wait();
    close(out_);
    close(err_);
  }

  void signal(int number) { kill(pid_, number); }
  /// The first line of stdout; empty when it ended without one.
  std::string ready_line() { return read_until(out_, '\n'); }
  std::string errors() { return read_until(err_, '\0'); }
  /// Exit status; 128 + n when a signal ended it.
  int wait() {
    if (!ended_) {
      int status = 0;
      if (!eventually([&] { return waitpid(pid_, &status, WNOHANG) == pid_; })) {
        ADD_FAILURE() << "still running";
        signal(SIGKILL);
        waitpid(pid_, &status, 0);
      }
      ended_ = true;
      code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    return code_;
  }

 private:
  static std::string read_until(int pipe, char end) {
    std::string text;
    char c;
    while (read(pipe, &c, 1) == 1 && c != end) text += c;
    return text;
  }

  pid_t pid_ = -1;
  int out_ = -1, err_ = -1;
  bool ended_ = false;
  int code_ = -1;
};

std::string address_of(const std::string& ready_line) {
  return ready_line.substr(ready_line.find_last_of(' ') + 1);
}

std::string start(Process& process) {
  const std::string line = process.ready_line();
  EXPECT_THAT(line, ::testing::StartsWith("trireme-coordinator ready, listening on 127.0.0.1:"));
  return address_of(line);
}

TEST(CoordinatorProcessTest, SaysWhereItListensAndEndsOnSigterm) {
  Process process({"--listen", "127.0.0.1:0"});
  const auto channel = rpc::create_channel(start(process));
  grpc::ClientContext context;
  set_patience(context);
  v1::GetClusterResponse response;
  EXPECT_TRUE(v1::Cluster::NewStub(channel)->GetCluster(&context, {}, &response).ok());
  process.signal(SIGTERM);
  EXPECT_EQ(process.wait(), 0);
}

TEST(CoordinatorProcessTest, PortInUseIsOneClearLine) {
  Process first({"--listen", "127.0.0.1:0"});
  const std::string address = start(first);
  Process second({"--listen", address});
  EXPECT_EQ(second.wait(), 1);
  EXPECT_EQ(second.ready_line(), "");
  const std::string errors = second.errors();
  EXPECT_THAT(errors, HasSubstr("cannot listen on " + address + ": the port is in use"));
  EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
}

TEST(CoordinatorProcessTest, OpenAddressNeedsInsecure) {
  Process refused({"--listen", "0.0.0.0:0"});
  EXPECT_EQ(refused.wait(), 1);
  EXPECT_THAT(refused.errors(), HasSubstr("--insecure"));
  Process accepted({"--listen", "0.0.0.0:0", "--insecure"});
  EXPECT_THAT(accepted.ready_line(), HasSubstr("listening on 0.0.0.0:"));
}

TEST(CoordinatorProcessTest, BadFlagsAreRefused) {
  for (const std::vector<std::string>& flags :
       std::vector<std::vector<std::string>>{{"--listen", "nowhere"},
                                             {"--tensor-parallel", "0"},
                                             {"--tensor-parallel", "two"},
                                             {"--drain-timeout", "-1"},
                                             {"--drain-timeout", "nan"},
                                             {"--log-level", "loud"},
                                             {"--unknown"}}) {
    Process process(flags);
    EXPECT_NE(process.wait(), 0) << flags[0];
    EXPECT_NE(process.errors(), "") << flags[0];
  }
}

TEST(CoordinatorProcessTest, SigtermLetsStreamsFinish) {
  Process process({"--listen", "127.0.0.1:0"});
  const std::string address = start(process);
  std::atomic<bool> may_end{false};
  Joined a(address, "a",
           [&](grpc::ServerContext&, const v1::GenerateRequest& request, FakeReplica::Writer& writer) {
             send_prompt(request, writer);
             send_token(writer, 0);
             EXPECT_TRUE(eventually([&] { return may_end.load(); }));
             send_token(writer, 1);
             send_end(writer, 2, v1::FINISH_REASON_LENGTH);
             return grpc::Status::OK;
           });
  const auto stub = v1::Inference::NewStub(rpc::create_channel(address));
  Stream stream(*stub, token_request());
  ASSERT_TRUE(stream.read_tokens(1));
  process.signal(SIGTERM);
  EXPECT_TRUE(a.leader.was_told(v1::REPLICA_STATE_DRAINING));
  may_end = true;
  EXPECT_TRUE(stream.finish().ok());
  EXPECT_EQ(stream.tokens.size(), 2u);
  EXPECT_TRUE(a.leader.was_told(v1::REPLICA_STATE_STOP));
  a.leader.hang_up();
  EXPECT_EQ(process.wait(), 0);
}

TEST(CoordinatorProcessTest, SecondSigtermEndsAtOnce) {
  Process process({"--listen", "127.0.0.1:0", "--drain-timeout", "3600"});
  const std::string address = start(process);
  FakeReplica* self = nullptr;
  Joined a(address, "a", send_then_wait(self, 1));
  self = &a.replica;
  const auto stub = v1::Inference::NewStub(rpc::create_channel(address));
  Stream stream(*stub, token_request());
  ASSERT_TRUE(stream.read_tokens(1));
  process.signal(SIGTERM);
  EXPECT_TRUE(a.leader.was_told(v1::REPLICA_STATE_DRAINING));  // the first one was taken
  process.signal(SIGTERM);
  EXPECT_EQ(process.wait(), 128 + SIGTERM);
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(CoordinatorProcessTest, KilledCoordinatorIsNoticedByAll) {
  Process process({"--listen", "127.0.0.1:0"});
  const std::string address = start(process);
  FakeReplica* self = nullptr;
  Joined a(address, "a", send_then_wait(self, 1));
  self = &a.replica;
  const auto stub = v1::Inference::NewStub(rpc::create_channel(address));
  Stream stream(*stub, token_request());
  ASSERT_TRUE(stream.read_tokens(1));
  process.signal(SIGKILL);
  EXPECT_EQ(stream.finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(a.leader.ended().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(eventually([&] { return a.replica.num_running() == 0; }));
  EXPECT_TRUE(a.replica.saw_cancelled_context());
}

TEST(CoordinatorProcessTest, PromptsAndOutputsAreNotLogged) {
  Process process({"--listen", "127.0.0.1:0", "--log-level", "debug"});
  const std::string address = start(process);
  {
    Joined a(address, "a", send_tokens(4));
    const auto stub = v1::Inference::NewStub(rpc::create_channel(address));
    v1::GenerateRequest request;
    request.set_request_id("logged-id");
    request.set_text("CANARY");
    EXPECT_TRUE(Stream(*stub, request).finish().ok());
    request.mutable_sampling()->set_top_p(7);
    EXPECT_EQ(Stream(*stub, request).finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
  process.signal(SIGTERM);
  EXPECT_EQ(process.wait(), 0);
  const std::string log = process.errors();
  EXPECT_THAT(log, HasSubstr("logged-id"));
  EXPECT_THAT(log, ::testing::Not(HasSubstr("CANARY")));
  EXPECT_THAT(log, ::testing::Not(HasSubstr("t0 t1")));
}

}  // namespace
}  // namespace trireme
