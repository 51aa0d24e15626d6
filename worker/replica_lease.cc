#include "worker/replica_lease.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include <grpcpp/grpcpp.h>
#include <spdlog/spdlog.h>

#include "proto/support/endpoint.h"
#include "trireme/v1/cluster.grpc.pb.h"
#include "worker/backoff.h"

namespace trireme::worker {

namespace {

constexpr std::chrono::seconds kHangUpTime{1};

}  // namespace

/// One ServeReplica call. What it holds is guarded by the lease's mutex, since gRPC calls it from threads of
/// its own until OnDone. Must be done when destroyed.
class ReplicaLease::Stream : public grpc::ClientBidiReactor<v1::ReplicaReport, v1::ReplicaCommand> {
 public:
  Stream(ReplicaLease& lease, v1::ReplicaReport first)
      : report(std::move(first)),
        lease_(lease),
        stub_(v1::Cluster::NewStub(rpc::create_channel(lease.coordinator_))) {
    stub_->async()->ServeReplica(&context_, this);
    AddHold();  // writes are started from the lease's thread: the call must not end between them
    StartWrite(&report);
    StartRead(&command_);
    StartCall();
  }

  void OnWriteDone(bool) override {
    std::lock_guard lock(lease_.mutex_);
    writing = false;
    lease_.reported_ = reporting;
    lease_.changed_.notify_all();
  }

  void OnReadDone(bool ok) override {
    std::lock_guard lock(lease_.mutex_);
    if (!ok) {
      over = true;
      lease_.registered_ = false;
      lease_.changed_.notify_all();
      return;
    }
    lease_.registered_ = true;
    desired_state = command_.desired_state();
    lease_.changed_.notify_all();
    StartRead(&command_);
  }

  void OnDone(const grpc::Status& end) override {
    std::lock_guard lock(lease_.mutex_);
    done = true;
    status = end;
    lease_.registered_ = false;
    lease_.changed_.notify_all();
  }

  void write(v1::ReplicaReport next, uint64_t number) {
    report = std::move(next);
    reporting = number;
    writing = true;
    StartWrite(&report);
  }
  void hang_up() { StartWritesDone(); }
  void cancel() { context_.TryCancel(); }

  v1::ReplicaReport report;  // the last one written, or being written
  uint64_t reporting = 0;    // which of the wanted reports it is
  bool writing = true;
  bool over = false;  // nothing comes any more
  bool done = false;  // gRPC is through with it
  grpc::Status status;
  std::optional<v1::ReplicaState> desired_state;  // not obeyed yet

 private:
  ReplicaLease& lease_;
  std::unique_ptr<v1::Cluster::Stub> stub_;
  grpc::ClientContext context_;
  v1::ReplicaCommand command_;
};

ReplicaLease::ReplicaLease(std::string coordinator, v1::ReplicaRegistration registration, ReplicaHooks hooks,
                           ReplicaLeaseOptions options)
    : coordinator_(std::move(coordinator)),
      registration_(std::move(registration)),
      hooks_(std::move(hooks)),
      options_(options),
      thread_([this] { run(); }) {}

ReplicaLease::~ReplicaLease() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

bool ReplicaLease::report_now(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  if (!registered_) return false;
  const uint64_t number = ++wanted_;
  changed_.notify_all();
  const auto over = [&] { return reported_ >= number || !registered_ || stopping_; };
  return changed_.wait_for(lock, timeout, over) && reported_ >= number;
}

void ReplicaLease::run() {
  Backoff backoff(options_.first_retry, options_.longest_retry);
  set_lost_since(Clock::now());
  while (true) {
    const bool was_registered = serve();
    if (was_registered) {
      backoff.reset();
      set_lost_since(Clock::now());
    }
    const auto next_attempt = std::min(Clock::now() + backoff.next(), give_up_at_);
    {
      std::unique_lock lock(mutex_);
      if (changed_.wait_until(lock, next_attempt, [this] { return stopping_; })) return;
    }
    if (Clock::now() >= give_up_at_) return hooks_.on_lost(last_failure_);
  }
}

void ReplicaLease::set_lost_since(Clock::time_point time) {
  give_up_at_ = options_.give_up_after.count() > 0 ? time + options_.give_up_after : Clock::time_point::max();
}

bool ReplicaLease::serve() {
  v1::ReplicaReport first = hooks_.report();
  *first.mutable_registration() = registration_;
  Stream stream(*this, std::move(first));
  const bool was_registered = tend(stream);
  std::unique_lock lock(mutex_);
  // In order, where the other side still listens: the last report first.
  changed_.wait_for(lock, kHangUpTime, [&] { return stream.over || !stream.writing; });
  if (!stream.over && !stream.writing) {
    stream.hang_up();
    changed_.wait_for(lock, kHangUpTime, [&] { return stream.over; });
  }
  if (!stream.over) stream.cancel();
  lock.unlock();
  stream.RemoveHold();  // nothing is started from here any more
  lock.lock();
  changed_.wait(lock, [&] { return stream.done; });  // gRPC promises an end after a cancel
  if (!stopping_) explain_end(was_registered, stream.status.error_message());
  return was_registered;
}

bool ReplicaLease::tend(Stream& stream) {
  bool was_registered = false;
  Clock::time_point last_report = Clock::now();
  const Clock::time_point answer_due = std::min(last_report + options_.registration_timeout, give_up_at_);
  std::unique_lock lock(mutex_);
  while (!stopping_ && !stream.over) {
    if (!was_registered && !stream.desired_state && Clock::now() >= answer_due) break;
    changed_.wait_for(lock, options_.look_interval, [&] {
      return stopping_ || stream.over || stream.desired_state || (wanted_ > reported_ && !stream.writing);
    });
    const auto desired_state = std::exchange(stream.desired_state, std::nullopt);
    const uint64_t number = wanted_;
    lock.unlock();
    if (desired_state && !std::exchange(was_registered, true)) {
      last_failure_.clear();
      spdlog::info("replica {} is registered at coordinator {}", registration_.replica_id(), coordinator_);
    }
    if (desired_state) hooks_.on_desired_state(*desired_state);
    v1::ReplicaReport report = hooks_.report();
    lock.lock();
    if (stopping_ || stream.over || stream.writing || !was_registered) continue;
    const bool due = number > reported_ || Clock::now() - last_report >= options_.report_interval;
    if (!due && report.SerializeAsString() == stream.report.SerializeAsString()) continue;
    stream.write(std::move(report), number);
    last_report = Clock::now();
  }
  return was_registered;
}

void ReplicaLease::explain_end(bool was_registered, const std::string& reason) {
  if (was_registered) {
    spdlog::warn("replica {} lost coordinator {} ({}); registering again", registration_.replica_id(),
                 coordinator_, reason);
  } else if (reason != last_failure_) {
    spdlog::warn("replica {} is not registered at coordinator {} yet: {}", registration_.replica_id(),
                 coordinator_, reason);
  }
  last_failure_ = reason;
}

}  // namespace trireme::worker
