#include "worker/generate_reactors.h"

#include <utility>

#include "proto/support/collect.h"

namespace trireme::worker {

namespace {

const grpc::Status kAbandoned(grpc::StatusCode::CANCELLED, "the client is gone");

void attach(const Receipt& receipt, grpc::CallbackServerContext& context) {
  for (const auto& [key, value] : receipt.metadata()) context.AddTrailingMetadata(key, value);
}

}  // namespace

StreamCall* StreamCall::start(const CallEnvironment& environment, grpc::CallbackServerContext* context,
                              const v1::GenerateRequest& message) {
  auto call = std::make_shared<StreamCall>(environment, context);
  call->self_ = call;
  environment.streams.add(call);
  call->begin(message, *context);
  return call.get();
}

void StreamCall::tick(std::chrono::steady_clock::time_point now) {
  std::lock_guard lock(mutex_);
  end_if_late(now);
}

bool StreamCall::end_if_late(std::chrono::steady_clock::time_point now) {
  if (done_ || !(writing_ || ended_) || now - write_began_ <= write_timeout_) return false;
  reset_stream();
  if (ended_ || abandoned_ || !error_.ok()) return false;
  fail(grpc::Status(grpc::StatusCode::CANCELLED, "cancelled: a message was not taken in time"));
  return true;
}

void OpenStreams::add(std::weak_ptr<StreamCall> stream) {
  std::lock_guard lock(mutex_);
  streams_.push_back(std::move(stream));
}

void OpenStreams::tick(std::chrono::steady_clock::time_point now) {
  std::vector<std::shared_ptr<StreamCall>> open;  // a last reference must not go with the lock held
  {
    std::lock_guard lock(mutex_);
    std::erase_if(streams_, [&open](const auto& stream) {
      auto alive = stream.lock();
      if (!alive) return true;
      open.push_back(std::move(alive));
      return false;
    });
  }
  for (const auto& stream : open) stream->tick(now);
}

// Whoever delivers a great many tokens hardly leaves the lock to a tick, so lateness is looked at here, too.
void StreamCall::flush() {
  if (writing_ && end_if_late(std::chrono::steady_clock::now())) return;
  if (!writing_ && !ended_) write_next();
  account();
}

void StreamCall::write_next() {
  write_began_ = std::chrono::steady_clock::now();
  if (abandoned_) {
    ended_ = true;
    return Finish(kAbandoned);
  }
  message_.Clear();
  const size_t pending_bytes = builder_ ? builder_->pending_bytes() : 0;
  if (!builder_ || !builder_->next(message_)) {
    if (error_.ok()) return;
    ended_ = true;
    attach(receipt_, *context_);
    return Finish(error_);
  }
  receipt_.observe(message_);
  if (builder_->complete()) {
    attach(receipt_, *context_);
    // Before the write, so that a client that has read the end may use the id again.
    release();
    ended_ = true;
    return StartWriteAndFinish(&message_, {}, grpc::Status::OK);
  }
  writing_ = true;
  writing_bytes_ = pending_bytes - builder_->pending_bytes();
  StartWrite(&message_);
}

void StreamCall::account() {
  const size_t bytes = (builder_ ? builder_->pending_bytes() : 0) + writing_bytes_;
  if (bytes > held_bytes_) outbox.hold(bytes - held_bytes_);
  if (bytes < held_bytes_) outbox.release(held_bytes_ - bytes);
  held_bytes_ = bytes;
}

void StreamCall::OnWriteDone(bool ok) {
  std::lock_guard lock(mutex_);
  writing_ = false;
  writing_bytes_ = 0;
  if (!ok) abandon();
  flush();
}

void StreamCall::OnCancel() {
  std::lock_guard lock(mutex_);
  abandon();
}

void StreamCall::OnDone() {
  // A delivery may hold the call a little longer; it finds it released.
  const auto self = std::move(self_);
  std::lock_guard lock(mutex_);
  done_ = true;
  release();
}

OnceCall* OnceCall::start(const CallEnvironment& environment, grpc::CallbackServerContext* context,
                          const v1::GenerateRequest& message, v1::GenerateOnceResponse* response) {
  auto call = std::make_shared<OnceCall>(environment, context, response);
  call->self_ = call;
  call->begin(message, *context);
  return call.get();
}

void OnceCall::flush() {
  if (ended_) return;
  v1::GenerateResponse message;
  while (error_.ok() && !abandoned_ && builder_ && builder_->next(message)) {
    receipt_.observe(message);
    rpc::collect(message, static_cast<int>(builder_->num_samples()), *response_);
    message.Clear();
  }
  const bool complete = builder_ && builder_->complete();
  if (!complete && !abandoned_ && error_.ok()) return;
  release();
  ended_ = true;
  attach(receipt_, *context_);
  Finish(complete ? grpc::Status::OK : abandoned_ ? kAbandoned : error_);
}

void OnceCall::OnCancel() {
  std::lock_guard lock(mutex_);
  abandon();
}

void OnceCall::OnDone() {
  const auto self = std::move(self_);
  std::lock_guard lock(mutex_);
  release();
}

}  // namespace trireme::worker
