#include "coordinator/generate_call.h"

#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"

namespace trireme {
namespace {

constexpr std::chrono::seconds kCancelTimeout{5};

int num_samples(const v1::GenerateRequest& request) {
  return request.output().has_n() ? request.output().n() : 1;
}

/// One Cancel sent to a replica.
struct CancelCall {
  grpc::ClientContext context;
  v1::CancelRequest request;
  v1::CancelResponse response;
};

}  // namespace

GenerateCall::GenerateCall(v1::GenerateRequest request, std::unique_ptr<Assignment> assignment,
                           gpr_timespec deadline, GenerateSink& sink,
                           std::function<void(const GenerateCall&, const grpc::Status&)> on_end)
    : request_(std::move(request)),
      assignment_(std::move(assignment)),
      sink_(sink),
      on_end_(std::move(on_end)),
      relay_(static_cast<RelayStreams&>(*this)),
      transcript_(num_samples(request_)) {
  context_.set_deadline(deadline);  // C++ propagates none by itself
}

void GenerateCall::start() {
  self_ = shared_from_this();
  assignment_->link().stub->async()->Generate(&context_, &request_, this);
  AddHold();  // reads are started from the client's side too; release() takes it back
  relay_.start();
  StartCall();
}

void GenerateCall::read() { StartRead(&message_); }

void GenerateCall::write() {
  if (record(message_)) {
    sink_.write(message_);
  } else {
    relay_.end(RelayEnd::malformed);
    relay_.on_written(true);
  }
}

void GenerateCall::OnReadDone(bool ok) {
  if (ok) note_arrival();
  relay_.on_read(ok);
}

void GenerateCall::note_arrival() {
  bool ask_again;
  {
    std::lock_guard lock(cancel_mutex_);
    // A Cancel that overtook the request itself found nothing to cancel: now the replica has it.
    ask_again = cancel_requested_ && !has_message_;
    has_message_ = true;
  }
  if (ask_again) cancel_request(gpr_inf_future(GPR_CLOCK_MONOTONIC), [] {});
}

bool GenerateCall::record(const v1::GenerateResponse& message) {
  has_usage_ = has_usage_ || message.has_usage();
  for (const v1::Delta& delta : message.deltas()) {
    if (!transcript_.append(delta.index(), delta.token_ids().data(), delta.token_ids_size(),
                            delta.has_finish_reason()))
      return false;
  }
  return true;
}

void GenerateCall::OnDone(const grpc::Status& status) {
  upstream_status_ = status;
  relay_.on_upstream_done();
}

void GenerateCall::finish(RelayEnd end) {
  const std::shared_ptr<GenerateCall> self = std::move(self_);
  const grpc::Status status = final_status(end);
  assignment_->release();
  on_end_(*this, status);
  sink_.finish(status);
}

grpc::Status GenerateCall::lost(const std::string& why) const {
  const std::string tokens = absl::StrCat(transcript_.num_tokens());
  return rpc::with_info(
      grpc::StatusCode::UNAVAILABLE,
      absl::StrCat("request ", request_id(), ": ", why, " after ", tokens, " tokens were sent"),
      "REPLICA_LOST", {{"tokens_sent", tokens}, {"request_id", request_id()}, {"replica_id", replica_id()}});
}

grpc::Status GenerateCall::final_status(RelayEnd end) const {
  switch (end) {
    case RelayEnd::client_gone:
      return grpc::Status(grpc::StatusCode::CANCELLED, "the client is gone");
    case RelayEnd::cancelled:
      return grpc::Status(grpc::StatusCode::CANCELLED, "Cancel was called");
    case RelayEnd::replica_lost:
      return lost(absl::StrCat("replica ", replica_id(), " was lost"));
    case RelayEnd::aborted:
      return lost("the coordinator shut down");
    case RelayEnd::malformed:
      return grpc::Status(grpc::StatusCode::INTERNAL,
                          absl::StrCat("replica ", replica_id(), " sent a sample that was not asked for"));
    case RelayEnd::upstream:
      break;
  }
  const grpc::StatusCode code = upstream_status_.error_code();
  if (code == grpc::StatusCode::UNAVAILABLE && transcript_.num_tokens() == 0 &&
      rpc::retry_info(upstream_status_))
    return upstream_status_;  // the replica's own words: it takes nothing now
  // Nobody here cancelled: a server that goes away ends its calls so.
  if (code == grpc::StatusCode::UNAVAILABLE || code == grpc::StatusCode::CANCELLED)
    return lost(absl::StrCat("replica ", replica_id(), " was lost (", upstream_status_.error_message(), ")"));
  if (code == grpc::StatusCode::OK && !has_usage_)
    return grpc::Status(grpc::StatusCode::INTERNAL,
                        absl::StrCat("replica ", replica_id(), " ended its stream without usage"));
  return upstream_status_;
}

void GenerateCall::cancel_request(gpr_timespec deadline, std::function<void()> done) {
  {
    std::lock_guard lock(cancel_mutex_);
    cancel_requested_ = true;
  }
  auto call = std::make_shared<CancelCall>();
  const gpr_timespec latest =
      gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(kCancelTimeout.count(), GPR_TIMESPAN));
  call->context.set_deadline(gpr_time_cmp(deadline, latest) < 0 ? deadline : latest);
  call->request.set_request_id(request_id());
  assignment_->link().stub->async()->Cancel(
      &call->context, &call->request, &call->response,
      [self = shared_from_this(), call, done = std::move(done)](const grpc::Status& status) {
        if (!status.ok()) self->relay_.end(RelayEnd::cancelled);
        done();
      });
}

}  // namespace trireme
