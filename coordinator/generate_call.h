#pragma once
// A Generate request on its way: what was passed on of it, and the replica that works on it now.

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/membership.h"
#include "coordinator/replica_call.h"
#include "coordinator/request_life.h"
#include "coordinator/request_record.h"
#include "coordinator/transcript.h"
#include "trireme/v1/inference.pb.h"

namespace trireme {

/// Where messages are passed on to.
class GenerateSink {
 public:
  virtual ~GenerateSink() = default;
  /// Answered by GenerateCall::on_written(), when the next message may come. `message` stays until then.
  virtual void write(const v1::GenerateResponse& message) = 0;
  /// Gives up the write that is open, if there is one: it fails soon.
  virtual void reset() = 0;
  /// Once, last. `receipt` goes into the trailing metadata.
  virtual void finish(const grpc::Status& status, const RequestRecord::Metadata& receipt) = 0;
};

struct RequestOptions {
  int max_resumes = 1;                               // deaths of replicas a request outlives
  std::chrono::milliseconds resume_timeout{10'000};  // from a death until a replica takes over
  std::chrono::milliseconds write_timeout{30'000};   // for a client to take one message
};

/// A request as it was let in.
struct AdmittedRequest {
  v1::GenerateRequest request;  // has its id and seed
  PromptChunks prompt;          // helps to choose replicas
  std::string client;           // whose it is
  gpr_timespec deadline;
};

/// Make it with std::make_shared; it keeps itself alive until the request has ended. Thread-safe. When a
/// replica dies, the next one gets the request with everything that was passed on as its ResumeState, so that
/// the client sees one unbroken stream. Passed on is what was handed to the sink: a message that a dead
/// replica had sent and that was not handed on never was, whether it arrived here or not.
class GenerateCall : public std::enable_shared_from_this<GenerateCall>,
                     private LifeActions,
                     private ReplicaCallOwner {
 public:
  using Time = RequestLife::Time;

  /// `assignment` is for the first attempt. `on_end` is called once, before the sink hears of the end.
  GenerateCall(AdmittedRequest admitted, Membership& membership, std::unique_ptr<Assignment> assignment,
               const RequestOptions& options, RequestRecord record, GenerateSink& sink,
               std::function<void(const GenerateCall&, const grpc::Status&)> on_end);

  void start();
  void on_written(bool ok);
  void client_gone() { life_.end(RelayEnd::client_gone); }
  void abort() { life_.end(RelayEnd::aborted); }
  void replica_lost(LeaseId lease);
  void replica_available() { life_.replica_available(); }
  void stop_waiting() { life_.stop_waiting(); }
  /// Ends the request; `done` is called when the replica that runs it, if one does, knows.
  void cancel_request(gpr_timespec deadline, std::function<void()> done);
  /// To be called now and then: time limits are looked at here.
  void tick(Time now);

  const std::string& request_id() const { return request_.request_id(); }
  // After the end only:
  RelayEnd cause() const { return cause_; }
  /// By whoever asked: it left, was too slow, or called Cancel.
  bool was_cancelled() const;
  int64_t num_tokens() const { return transcript_.num_tokens(); }
  int num_resumes() const { return num_resumes_; }
  const std::string& replica_id() const { return attempt_->replica_id(); }

 private:
  bool find_replica() override;
  void start_attempt() override;
  void end_attempt(RelayEnd cause) override { attempt()->end(cause); }
  void forgive_refusals() override { refused_.clear(); }
  void finish(RelayEnd cause) override;
  void pass_on(v1::GenerateResponse& message) override;
  void on_call_ended(RelayEnd cause, const grpc::Status& status) override;

  void set_attempt(std::unique_ptr<Assignment> assignment);
  std::shared_ptr<ReplicaCall> attempt() const;
  void fill_resume();
  bool is_slow(Time now) const;
  bool client_was_slow() const;
  /// What is passed on, and only that. False when it cannot be.
  bool record(const v1::GenerateResponse& message);
  AttemptEnd judge(RelayEnd cause, const grpc::Status& status) const;
  grpc::Status final_status(RelayEnd cause) const;
  grpc::Status upstream_status() const;
  grpc::Status slow_client() const;
  grpc::Status lost(const std::string& why) const;

  v1::GenerateRequest request_;  // `resume` grows between attempts
  const PromptChunks prompt_;
  const std::string client_;
  Membership& membership_;
  const gpr_timespec deadline_;
  const RequestOptions options_;
  GenerateSink& sink_;
  const std::function<void(const GenerateCall&, const grpc::Status&)> on_end_;
  RequestLife life_;
  std::shared_ptr<GenerateCall> self_;  // from start() to the end

  // Used by one event after the other: messages, then the end of the attempt, then the next one's start.
  std::optional<Time> last_slow_write_;  // when it ended
  RequestRecord record_;
  Transcript transcript_;
  bool has_prompt_ = false;
  bool has_usage_ = false;
  bool cut_short_ = false;  // a sample ended because of Cancel
  int num_resumes_ = 0;
  RelayEnd cause_ = RelayEnd::upstream;
  grpc::Status status_;  // how the last attempt ended
  std::string loss_;     // which replica died last, and how that showed
  std::vector<Incarnation> lost_, refused_;

  mutable std::mutex mutex_;
  std::shared_ptr<ReplicaCall> attempt_;  // the latest; written between attempts only
  std::optional<Time> write_began_;       // set while a write is open
};

}  // namespace trireme
