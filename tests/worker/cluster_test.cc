// A worker's dealings with a coordinator, played here by a scripted one.
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "proto/support/endpoint.h"
#include "trireme/v1/cluster.grpc.pb.h"
#include "worker/join_job.h"
#include "worker/replica_lease.h"

namespace trireme::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Takes every replica, remembers its reports, says what it is told to.
class FakeCoordinator final : public v1::Cluster::Service {
 public:
  explicit FakeCoordinator(int port = 0) {
    grpc::ServerBuilder builder;
    int bound_port = 0;
    EXPECT_TRUE(rpc::configure_server(builder, {"127.0.0.1", port}, false, &bound_port).ok());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    port_ = bound_port;
  }
  ~FakeCoordinator() override { server_->Shutdown(gpr_time_from_millis(0, GPR_TIMESPAN)); }
  int port() const { return port_; }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  grpc::Status JoinJob(grpc::ServerContext*, const v1::JoinJobRequest* request,
                       v1::JoinJobResponse* response) override {
    if (request->job_id() == "bad") return {grpc::StatusCode::FAILED_PRECONDITION, "another model"};
    response->set_tensor_parallel_size(request->ranks_size());
    return grpc::Status::OK;
  }

  grpc::Status ServeReplica(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<v1::ReplicaCommand, v1::ReplicaReport>* stream) override {
    v1::ReplicaReport report;
    while (stream->Read(&report)) {
      std::unique_lock lock(mutex_);
      if (report.has_registration()) registrations.push_back(report.registration());
      reports.push_back(report);
      v1::ReplicaCommand command;
      command.set_desired_state(desired_state_);
      const bool answer = report.has_registration() || desired_state_ != v1::REPLICA_STATE_SERVING;
      changed_.notify_all();
      if (hang_up_) return {grpc::StatusCode::UNAVAILABLE, "going away"};
      lock.unlock();
      if (answer) stream->Write(command);
    }
    std::lock_guard lock(mutex_);
    ended_cleanly += context->IsCancelled() ? 0 : 1;
    changed_.notify_all();
    return grpc::Status::OK;
  }

  bool wait_for(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(20), condition);
  }
  void say(v1::ReplicaState state) {
    std::lock_guard lock(mutex_);
    desired_state_ = state;
  }
  void hang_up(bool value) {
    std::lock_guard lock(mutex_);
    hang_up_ = value;
  }

  // Guarded by the mutex; looked at inside wait_for().
  std::vector<v1::ReplicaRegistration> registrations;
  std::vector<v1::ReplicaReport> reports;
  int ended_cleanly = 0;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  v1::ReplicaState desired_state_ = v1::REPLICA_STATE_SERVING;
  bool hang_up_ = false;
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
};

/// A replica whose report is set by the test.
class FakeReplica {
 public:
  ReplicaHooks hooks() {
    ReplicaHooks made;
    made.report = [this] {
      std::lock_guard lock(mutex_);
      return report_;
    };
    made.on_desired_state = [this](v1::ReplicaState state) {
      std::lock_guard lock(mutex_);
      states_.push_back(state);
      changed_.notify_all();
    };
    return made;
  }
  void set_running(int running) {
    std::lock_guard lock(mutex_);
    report_.mutable_load()->set_running_requests(running);
  }
  bool wait_for_state(v1::ReplicaState state) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(20), [&] { return !states_.empty() && states_.back() == state; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  v1::ReplicaReport report_;
  std::vector<v1::ReplicaState> states_;
};

v1::ReplicaRegistration registration() {
  v1::ReplicaRegistration made;
  made.set_replica_id("job-0");
  made.set_incarnation("1");
  made.set_port(1234);
  return made;
}

ReplicaLeaseOptions quick() {
  ReplicaLeaseOptions options;
  options.report_interval = milliseconds(50);
  options.look_interval = milliseconds(5);
  options.first_retry = milliseconds(10);
  options.longest_retry = milliseconds(100);
  return options;
}

TEST(ReplicaLeaseTest, FirstMessageRegistersAndTheOthersReport) {
  FakeCoordinator coordinator;
  FakeReplica replica;
  replica.set_running(3);
  ReplicaLease lease(coordinator.address(), registration(), replica.hooks(), quick());
  ASSERT_TRUE(coordinator.wait_for([&] { return coordinator.reports.size() >= 4; }));
  ASSERT_TRUE(coordinator.wait_for([&] {
    EXPECT_EQ(coordinator.registrations.size(), 1u);
    EXPECT_EQ(coordinator.registrations[0].port(), 1234);
    EXPECT_FALSE(coordinator.reports[1].has_registration());
    EXPECT_EQ(coordinator.reports[1].load().running_requests(), 3);
    return true;
  }));
}

TEST(ReplicaLeaseTest, ChangesAreReportedWithoutWaitingForTheInterval) {
  FakeCoordinator coordinator;
  FakeReplica replica;
  ReplicaLeaseOptions options = quick();
  options.report_interval = seconds(3600);
  ReplicaLease lease(coordinator.address(), registration(), replica.hooks(), options);
  ASSERT_TRUE(replica.wait_for_state(v1::REPLICA_STATE_SERVING));
  replica.set_running(7);
  EXPECT_TRUE(
      coordinator.wait_for([&] { return coordinator.reports.back().load().running_requests() == 7; }));
}

TEST(ReplicaLeaseTest, WantedReportIsWrittenBeforeTheCallReturns) {
  FakeCoordinator coordinator;
  FakeReplica replica;
  ReplicaLeaseOptions options = quick();
  options.report_interval = options.look_interval = seconds(3600);
  ReplicaLease lease(coordinator.address(), registration(), replica.hooks(), options);
  ASSERT_TRUE(replica.wait_for_state(v1::REPLICA_STATE_SERVING));
  replica.set_running(9);
  EXPECT_TRUE(lease.report_now(seconds(20)));
  EXPECT_TRUE(
      coordinator.wait_for([&] { return coordinator.reports.back().load().running_requests() == 9; }));
}

TEST(ReplicaLeaseTest, DesiredStatesReachTheReplica) {
  FakeCoordinator coordinator;
  FakeReplica replica;
  ReplicaLease lease(coordinator.address(), registration(), replica.hooks(), quick());
  ASSERT_TRUE(replica.wait_for_state(v1::REPLICA_STATE_SERVING));
  coordinator.say(v1::REPLICA_STATE_DRAINING);
  EXPECT_TRUE(replica.wait_for_state(v1::REPLICA_STATE_DRAINING));
  coordinator.say(v1::REPLICA_STATE_STOP);
  EXPECT_TRUE(replica.wait_for_state(v1::REPLICA_STATE_STOP));
}

TEST(ReplicaLeaseTest, BrokenStreamIsOpenedAgain) {
  FakeCoordinator coordinator;
  FakeReplica replica;
  ReplicaLease lease(coordinator.address(), registration(), replica.hooks(), quick());
  ASSERT_TRUE(coordinator.wait_for([&] { return coordinator.reports.size() >= 2; }));
  coordinator.hang_up(true);
  ASSERT_TRUE(coordinator.wait_for([&] { return coordinator.registrations.size() >= 3; }));
  coordinator.hang_up(false);
  size_t seen = 0;
  ASSERT_TRUE(coordinator.wait_for([&] {
    seen = coordinator.reports.size();
    return true;
  }));
  EXPECT_TRUE(coordinator.wait_for([&] { return coordinator.reports.size() >= seen + 5; }));
}

TEST(ReplicaLeaseTest, CoordinatorThatComesBackIsRegisteredAt) {
  FakeReplica replica;
  auto first = std::make_unique<FakeCoordinator>();
  const int port = first->port();
  ReplicaLease lease(first->address(), registration(), replica.hooks(), quick());
  ASSERT_TRUE(first->wait_for([&] { return first->reports.size() >= 2; }));
  first.reset();
  FakeCoordinator second(port);
  ASSERT_EQ(second.port(), port);
  EXPECT_TRUE(
      second.wait_for([&] { return second.registrations.size() == 1 && second.reports.size() >= 2; }));
}

/// Counts and keeps what a lease says at its end.
struct Loss {
  void wait_once() {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, seconds(20), [&] { return count == 1; }));
  }
  ReplicaHooks hooks(FakeReplica& replica) {
    ReplicaHooks made = replica.hooks();
    made.on_lost = [this](const std::string& why) {
      std::lock_guard lock(mutex);
      ++count;
      reason = why;
      changed.notify_all();
    };
    return made;
  }
  std::mutex mutex;
  std::condition_variable changed;
  int count = 0;
  std::string reason;
};

TEST(ReplicaLeaseTest, CoordinatorThatNeverAnswersIsGivenUp) {
  FakeReplica replica;
  Loss loss;
  ReplicaLeaseOptions options = quick();
  options.give_up_after = milliseconds(300);
  const auto begin = std::chrono::steady_clock::now();
  ReplicaLease lease("127.0.0.1:1", registration(), loss.hooks(replica), options);
  loss.wait_once();
  EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds(300));
  EXPECT_FALSE(loss.reason.empty());
}

TEST(ReplicaLeaseTest, PatienceBeginsAnewWithEachRegistration) {
  FakeReplica replica;
  Loss loss;
  ReplicaLeaseOptions options = quick();
  options.give_up_after = seconds(2);
  auto first = std::make_unique<FakeCoordinator>();
  const int port = first->port();
  ReplicaLease lease(first->address(), registration(), loss.hooks(replica), options);
  ASSERT_TRUE(replica.wait_for_state(v1::REPLICA_STATE_SERVING));
  std::this_thread::sleep_for(seconds(2));  // registered for longer than the patience lasts
  first.reset();
  auto second = std::make_unique<FakeCoordinator>(port);
  ASSERT_TRUE(second->wait_for([&] { return second->reports.size() >= 2; }));
  {
    std::lock_guard lock(loss.mutex);
    EXPECT_EQ(loss.count, 0);
  }
  second.reset();
  loss.wait_once();
}

TEST(ReplicaLeaseTest, EndOfTheLeaseEndsTheStreamInOrder) {
  FakeCoordinator coordinator;
  FakeReplica replica;
  {
    ReplicaLease lease(coordinator.address(), registration(), replica.hooks(), quick());
    ASSERT_TRUE(coordinator.wait_for([&] { return coordinator.reports.size() >= 2; }));
  }
  EXPECT_TRUE(coordinator.wait_for([&] { return coordinator.ended_cleanly == 1; }));
}

TEST(ReplicaLeaseTest, LeaseEndsWhileNobodyAnswers) {
  FakeReplica replica;
  ReplicaLease lease("127.0.0.1:1", registration(), replica.hooks(), quick());
  EXPECT_FALSE(lease.report_now(milliseconds(1)));
}

v1::JoinJobRequest job(const std::string& id) {
  v1::JoinJobRequest request;
  request.set_job_id(id);
  request.add_ranks();
  request.add_ranks();
  return request;
}

TEST(JoinJobTest, AnswerOfTheCoordinatorComesBack) {
  FakeCoordinator coordinator;
  const auto response = join_job(coordinator.address(), job("good"), seconds(20));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->tensor_parallel_size(), 2);
}

TEST(JoinJobTest, RefusalIsNotTriedAgain) {
  FakeCoordinator coordinator;
  const auto response = join_job(coordinator.address(), job("bad"), seconds(3600));
  EXPECT_TRUE(absl::IsFailedPrecondition(response.status()));
  EXPECT_NE(response.status().message().find("another model"), std::string::npos);
}

TEST(JoinJobTest, CoordinatorThatStartsLaterIsFound) {
  int port = 0;
  { port = FakeCoordinator().port(); }
  absl::StatusOr<v1::JoinJobResponse> response;
  std::thread joiner(
      [&] { response = join_job("127.0.0.1:" + std::to_string(port), job("good"), seconds(30)); });
  std::this_thread::sleep_for(milliseconds(300));  // so that it fails at least once
  FakeCoordinator coordinator(port);
  joiner.join();
  EXPECT_TRUE(response.ok()) << response.status();
}

TEST(JoinJobTest, UnreachableCoordinatorIsGivenUp) {
  int port = 0;
  { port = FakeCoordinator().port(); }
  const auto response = join_job("127.0.0.1:" + std::to_string(port), job("good"), milliseconds(500));
  EXPECT_TRUE(absl::IsUnavailable(response.status()));
  EXPECT_NE(response.status().message().find("not reached within 500 ms"), std::string::npos);
}

}  // namespace
}  // namespace trireme::worker
