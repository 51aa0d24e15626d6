#include "coordinator/generate_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// A replica that resets a stream, as one does whose unread output grows too large, looks like one that ends.
/// Shortly after a write that took a second it was the client: the buffers on the way are full only then.
constexpr std::chrono::seconds kSlowWrite{1};
constexpr std::chrono::seconds kShortly{10};

int num_samples(const v1::GenerateRequest& request) {
  return request.output().has_n() ? request.output().n() : 1;
}

LifeLimits life_limits(const RequestOptions& options, gpr_timespec deadline) {
  LifeLimits limits;
  limits.max_resumes = options.max_resumes;
  limits.resume_timeout = options.resume_timeout;
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(GPR_CLOCK_MONOTONIC));
  limits.deadline = steady_clock::now() + milliseconds(gpr_time_to_millis(left) + 1);  // rounded up
  return limits;
}

}  // namespace

GenerateCall::GenerateCall(AdmittedRequest admitted, Membership& membership,
                           std::unique_ptr<Assignment> assignment, const RequestOptions& options,
                           RequestRecord record, GenerateSink& sink,
                           std::function<void(const GenerateCall&, const grpc::Status&)> on_end)
    : request_(std::move(admitted.request)),
      prompt_(std::move(admitted.prompt)),
      client_(std::move(admitted.client)),
      membership_(membership),
      deadline_(admitted.deadline),
      options_(options),
      sink_(sink),
      on_end_(std::move(on_end)),
      life_(static_cast<LifeActions&>(*this), life_limits(options, admitted.deadline)),
      record_(std::move(record)),
      transcript_(num_samples(request_)) {
  for (const v1::ResumeState& state : request_.resume())
    transcript_.begin_with(state.index(), state.token_ids().data(), state.token_ids_size(), state.finished());
  set_attempt(std::move(assignment));
}

void GenerateCall::set_attempt(std::unique_ptr<Assignment> assignment) {
  auto attempt =
      std::make_shared<ReplicaCall>(std::move(assignment), deadline_, static_cast<ReplicaCallOwner&>(*this));
  std::lock_guard lock(mutex_);
  attempt_ = std::move(attempt);
}

std::shared_ptr<ReplicaCall> GenerateCall::attempt() const {
  std::lock_guard lock(mutex_);
  return attempt_;
}

void GenerateCall::start() {
  self_ = shared_from_this();
  life_.start();
}

bool GenerateCall::find_replica() {
  RouteWish wish{prompt_, lost_};
  wish.excluded.insert(wish.excluded.end(), refused_.begin(), refused_.end());
  std::unique_ptr<Assignment> assignment = membership_.assign(wish);
  if (!assignment) return false;
  set_attempt(std::move(assignment));
  return true;
}

void GenerateCall::start_attempt() {
  const auto self = shared_from_this();
  const int num_deaths = static_cast<int>(lost_.size());
  const bool is_resume = num_deaths > std::exchange(num_resumes_, num_deaths);
  if (num_resumes_ > 0) fill_resume();
  const std::shared_ptr<ReplicaCall> attempt = this->attempt();
  record_.routed(attempt->replica_id(), is_resume, steady_clock::now());
  attempt->start(request_, client_, num_resumes_);
  // The lease may have ended before replica_lost() could find this attempt.
  if (!membership_.registry().is_live(attempt->link().lease)) attempt->end(RelayEnd::replica_lost);
}

void GenerateCall::fill_resume() {
  request_.clear_resume();
  for (size_t i = 0; i < transcript_.samples().size(); ++i) {
    const Transcript::Sample& sample = transcript_.samples()[i];
    if (sample.token_ids.empty() && !sample.finished) continue;
    v1::ResumeState* state = request_.add_resume();
    state->set_index(static_cast<int32_t>(i));
    state->mutable_token_ids()->Assign(sample.token_ids.begin(), sample.token_ids.end());
    state->set_finished(sample.finished);
  }
}

void GenerateCall::pass_on(v1::GenerateResponse& message) {
  if (has_prompt_) message.clear_prompt();  // the client has one, from the replica before
  const bool has_content = message.has_prompt() || message.has_usage() || message.deltas_size() > 0;
  const bool recorded = record(message);
  if (!recorded) attempt_->end(RelayEnd::malformed);
  if (!recorded || !has_content) return attempt_->on_written(true);
  const Time now = steady_clock::now();
  record_.passed_on(message, now);
  {
    std::lock_guard lock(mutex_);
    write_began_ = now;
  }
  sink_.write(message);
}

bool GenerateCall::record(const v1::GenerateResponse& message) {
  has_prompt_ = has_prompt_ || message.has_prompt();
  has_usage_ = has_usage_ || message.has_usage();
  for (const v1::Delta& delta : message.deltas()) {
    if (!transcript_.append(delta.index(), delta.token_ids().data(), delta.token_ids_size(),
                            delta.has_finish_reason()))
      return false;
    cut_short_ = cut_short_ || delta.finish_reason() == v1::FINISH_REASON_CANCELLED;
  }
  return true;
}

bool GenerateCall::was_cancelled() const {
  return cut_short_ || cause_ == RelayEnd::client_gone || cause_ == RelayEnd::slow_client ||
         cause_ == RelayEnd::cancelled;
}

void GenerateCall::on_written(bool ok) {
  {
    std::lock_guard lock(mutex_);
    const Time now = steady_clock::now();
    if (now - *std::exchange(write_began_, std::nullopt) >= kSlowWrite) last_slow_write_ = now;
  }
  attempt_->on_written(ok);
}

void GenerateCall::replica_lost(LeaseId lease) {
  const std::shared_ptr<ReplicaCall> attempt = this->attempt();
  if (attempt->link().lease == lease) attempt->end(RelayEnd::replica_lost);
}

void GenerateCall::tick(Time now) {
  if (is_slow(now)) {
    life_.end(RelayEnd::slow_client);
    std::lock_guard lock(mutex_);
    if (write_began_) sink_.reset();  // it is there for as long as its write is open
  }
  life_.tick(now);
}

bool GenerateCall::is_slow(Time now) const {
  std::lock_guard lock(mutex_);
  return write_began_ && now - *write_began_ > options_.write_timeout;
}

void GenerateCall::cancel_request(gpr_timespec deadline, std::function<void()> done) {
  if (life_.cancel())
    attempt()->cancel_request(request_id(), deadline, std::move(done));
  else
    done();
}

bool GenerateCall::client_was_slow() const {
  return last_slow_write_ && steady_clock::now() - *last_slow_write_ < kShortly;
}

AttemptEnd GenerateCall::judge(RelayEnd cause, const grpc::Status& status) const {
  if (has_usage_) return AttemptEnd::done;  // everything was passed on
  if (cause == RelayEnd::replica_lost) return AttemptEnd::lost;
  if (cause != RelayEnd::upstream) return AttemptEnd::done;
  const grpc::StatusCode code = status.error_code();
  if (code == grpc::StatusCode::RESOURCE_EXHAUSTED && !attempt_->has_message()) return AttemptEnd::refused;
  // Nobody here cancelled: a server that goes away ends its calls so.
  if (code == grpc::StatusCode::CANCELLED) return client_was_slow() ? AttemptEnd::done : AttemptEnd::lost;
  return code == grpc::StatusCode::UNAVAILABLE ? AttemptEnd::lost : AttemptEnd::done;
}

void GenerateCall::on_call_ended(RelayEnd cause, const grpc::Status& status) {
  const AttemptEnd end = judge(cause, status);
  const ReplicaLink& link = attempt_->link();
  status_ = status;
  Incarnation incarnation{replica_id(), link.registration.incarnation()};
  if (end == AttemptEnd::refused) refused_.push_back(std::move(incarnation));
  if (end == AttemptEnd::lost) {
    lost_.push_back(std::move(incarnation));
    loss_ = absl::StrCat("replica ", replica_id(), " was lost");
    if (cause == RelayEnd::upstream) absl::StrAppend(&loss_, " (", status.error_message(), ")");
  }
  life_.attempt_ended(end, cause, steady_clock::now());
}

void GenerateCall::finish(RelayEnd cause) {
  const std::shared_ptr<GenerateCall> self = std::move(self_);
  cause_ = cause;
  const grpc::Status status = final_status(cause);
  record_.ended(status.error_code(), steady_clock::now());
  RequestRecord::Metadata receipt = attempt_->receipt();
  for (auto& entry : record_.metadata()) receipt.push_back(std::move(entry));
  on_end_(*this, status);
  sink_.finish(status, receipt);
}

grpc::Status GenerateCall::lost(const std::string& why) const {
  const std::string tokens = absl::StrCat(transcript_.num_tokens());
  return rpc::with_info(
      grpc::StatusCode::UNAVAILABLE,
      absl::StrCat("request ", request_id(), ": ", why, " after ", tokens, " tokens were sent"),
      "REPLICA_LOST", {{"tokens_sent", tokens}, {"request_id", request_id()}, {"replica_id", replica_id()}});
}

grpc::Status GenerateCall::final_status(RelayEnd cause) const {
  switch (cause) {
    case RelayEnd::client_gone:
      return grpc::Status(grpc::StatusCode::CANCELLED, "the client is gone");
    case RelayEnd::slow_client:
      return slow_client();
    case RelayEnd::cancelled:
      return grpc::Status(grpc::StatusCode::CANCELLED, "Cancel was called");
    case RelayEnd::replica_lost:
      if (has_usage_) return grpc::Status::OK;
      if (gpr_time_cmp(gpr_now(GPR_CLOCK_MONOTONIC), deadline_) >= 0)
        return grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, loss_);
      if (transcript_.num_tokens() == 0 && rpc::retry_info(status_))
        return status_;  // the replica's own words: it takes nothing now
      return lost(loss_);
    case RelayEnd::aborted:
      return lost("the coordinator shut down");
    case RelayEnd::malformed:
      return grpc::Status(grpc::StatusCode::INTERNAL,
                          absl::StrCat("replica ", replica_id(), " sent a sample that was not asked for"));
    case RelayEnd::upstream:
      break;
  }
  return upstream_status();
}

grpc::Status GenerateCall::slow_client() const {
  return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED,
                      absl::StrCat("request ", request_id(), ": the client does not read its messages"));
}

grpc::Status GenerateCall::upstream_status() const {
  if (status_.error_code() == grpc::StatusCode::OK && !has_usage_)
    return grpc::Status(grpc::StatusCode::INTERNAL,
                        absl::StrCat("replica ", replica_id(), " ended its stream without usage"));
  if (status_.ok() || has_usage_) return grpc::Status::OK;
  return status_.error_code() == grpc::StatusCode::CANCELLED ? slow_client() : status_;
}

}  // namespace trireme
