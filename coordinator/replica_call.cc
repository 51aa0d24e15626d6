#include "coordinator/replica_call.h"

#include <chrono>

#include "proto/support/caller.h"

namespace trireme {
namespace {

constexpr std::chrono::seconds kCancelTimeout{5};
// A leader writes seven short ones. All trailers together must stay under 16 kB.
constexpr size_t kMaxReceiptEntries = 16;
constexpr size_t kMaxReceiptBytes = 256;

/// One Cancel sent to a replica.
struct CancelCall {
  grpc::ClientContext context;
  v1::CancelRequest request;
  v1::CancelResponse response;
};

}  // namespace

ReplicaCall::ReplicaCall(std::unique_ptr<Assignment> assignment, gpr_timespec deadline,
                         ReplicaCallOwner& owner)
    : assignment_(std::move(assignment)), owner_(owner), relay_(static_cast<RelayStreams&>(*this)) {
  context_.set_deadline(deadline);  // C++ propagates none by itself
}

void ReplicaCall::start(const v1::GenerateRequest& request, const std::string& client, int num_resumes) {
  self_ = shared_from_this();
  request_id_ = request.request_id();
  if (!client.empty()) context_.AddMetadata(rpc::kClientKey, client);
  if (num_resumes > 0) context_.AddMetadata(rpc::kResumesKey, std::to_string(num_resumes));
  link().stub->async()->Generate(&context_, &request, this);
  AddHold();  // reads are started from the client's side too; release() takes it back
  relay_.start();
  StartCall();
}

void ReplicaCall::OnReadDone(bool ok) {
  if (ok) note_arrival();
  relay_.on_read(ok);
}

void ReplicaCall::note_arrival() {
  bool ask_again;
  {
    std::lock_guard lock(cancel_mutex_);
    // A Cancel that overtook the request itself found nothing to cancel: now the replica has it.
    ask_again = cancel_requested_ && !has_message_;
    has_message_ = true;
  }
  if (ask_again) cancel_request(request_id_, gpr_inf_future(GPR_CLOCK_MONOTONIC), [] {});
}

void ReplicaCall::OnDone(const grpc::Status& status) {
  status_ = status;
  relay_.on_upstream_done();
}

void ReplicaCall::finish(RelayEnd end) {
  const std::shared_ptr<ReplicaCall> self = std::move(self_);
  assignment_->release();
  owner_.on_call_ended(end, status_);
}

RequestRecord::Metadata ReplicaCall::receipt() const {
  RequestRecord::Metadata pairs;
  for (const auto& [name, text] : context_.GetServerTrailingMetadata()) {
    if (!name.starts_with("trireme-") || name.size() + text.size() > kMaxReceiptBytes) continue;
    if (pairs.size() == kMaxReceiptEntries) break;
    pairs.emplace_back(std::string(name.data(), name.size()), std::string(text.data(), text.size()));
  }
  return pairs;
}

void ReplicaCall::cancel_request(const std::string& request_id, gpr_timespec deadline,
                                 std::function<void()> done) {
  {
    std::lock_guard lock(cancel_mutex_);
    cancel_requested_ = true;
  }
  auto call = std::make_shared<CancelCall>();
  const gpr_timespec latest =
      gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_seconds(kCancelTimeout.count(), GPR_TIMESPAN));
  call->context.set_deadline(gpr_time_cmp(deadline, latest) < 0 ? deadline : latest);
  call->request.set_request_id(request_id);
  link().stub->async()->Cancel(
      &call->context, &call->request, &call->response,
      [self = shared_from_this(), call, done = std::move(done)](const grpc::Status& status) {
        if (!status.ok()) self->end(RelayEnd::cancelled);
        done();
      });
}

}  // namespace trireme
