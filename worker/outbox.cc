#include "worker/outbox.h"

#include <iterator>
#include <utility>

namespace trireme::worker {

Outbox::Push Outbox::wake() {
  if (told_) return Push::kQueued;
  told_ = true;
  return Push::kWake;
}

// The prompt's log probabilities do not count: they come once, and the validator bounds them.
size_t Outbox::bytes_of(const TokenOutput& output) {
  return sizeof(TokenOutput) + output.top_logprobs().size() * sizeof(TokenLogprob);
}

Outbox::Push Outbox::push(const TokenOutput& output) {
  std::lock_guard lock(mutex_);
  if (closed_) return Push::kClosed;
  if (!error_.ok()) return Push::kOverflow;
  const size_t bytes = bytes_of(output);
  if (held_bytes_ + output_bytes_ + bytes > limit_bytes_) return Push::kOverflow;
  output_bytes_ += bytes;
  outputs_.push_back(output);
  return wake();
}

Outbox::Push Outbox::fail(absl::Status error) {
  std::lock_guard lock(mutex_);
  if (closed_) return Push::kClosed;
  if (error_.ok()) error_ = std::move(error);
  return wake();
}

absl::Status Outbox::drain(std::vector<TokenOutput>& outputs) {
  std::lock_guard lock(mutex_);
  outputs.insert(outputs.end(), std::make_move_iterator(outputs_.begin()),
                 std::make_move_iterator(outputs_.end()));
  outputs_.clear();
  output_bytes_ = 0;
  told_ = false;
  return error_;
}

void Outbox::hold(size_t bytes) {
  std::lock_guard lock(mutex_);
  held_bytes_ += bytes;
}

void Outbox::release(size_t bytes) {
  std::lock_guard lock(mutex_);
  held_bytes_ -= bytes;
}

void Outbox::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  outputs_.clear();
  output_bytes_ = 0;
}

size_t Outbox::unread_bytes() const {
  std::lock_guard lock(mutex_);
  return held_bytes_ + output_bytes_;
}

}  // namespace trireme::worker
