#include "worker/outbox.h"

#include <utility>

namespace trireme::worker {

Outbox::Push Outbox::wake() {
  if (told_) return Push::kQueued;
  told_ = true;
  return Push::kWake;
}

Outbox::Push Outbox::push(const TokenOutput& output) {
  std::lock_guard lock(mutex_);
  if (closed_) return Push::kClosed;
  if (!error_.ok()) return Push::kOverflow;
  if (held_bytes_ + (outputs_.size() + 1) * sizeof(TokenOutput) > limit_bytes_) return Push::kOverflow;
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
  outputs.insert(outputs.end(), outputs_.begin(), outputs_.end());
  outputs_.clear();
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
}

size_t Outbox::unread_bytes() const {
  std::lock_guard lock(mutex_);
  return held_bytes_ + outputs_.size() * sizeof(TokenOutput);
}

}  // namespace trireme::worker
