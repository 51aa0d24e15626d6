#include "coordinator/request_life.h"

#include <algorithm>
#include <utility>

namespace trireme {

bool RequestLife::may_go_on_locked(AttemptEnd end, Time now) {
  if (end_cause_ || cancelled_) return false;
  if (end == AttemptEnd::lost) {
    give_up_at_ = std::min(now + limits_.resume_timeout, limits_.deadline);
    return ++num_deaths_ <= limits_.max_resumes;
  }
  if (num_deaths_ > 0) {
    retry_at_ = now + limits_.refusal_pause;
    return true;
  }
  return !std::exchange(was_refused_, true);
}

RelayEnd RequestLife::cause_locked() const {
  if (end_cause_) return *end_cause_;
  if (cancelled_) return RelayEnd::cancelled;
  return num_deaths_ > 0 ? RelayEnd::replica_lost : RelayEnd::upstream;
}

void RequestLife::attempt_ended(AttemptEnd end, RelayEnd cause, Time now) {
  bool goes_on;
  {
    std::lock_guard lock(mutex_);
    goes_on = end != AttemptEnd::done && may_go_on_locked(end, now);
    phase_ = goes_on ? Phase::seeking : Phase::over;
    if (end != AttemptEnd::done) cause = cause_locked();
  }
  if (goes_on)
    seek();
  else
    actions_.finish(cause);
}

void RequestLife::seek() {
  while (true) {
    const bool found = actions_.find_replica();
    std::unique_lock lock(mutex_);
    const bool wanted = !end_cause_ && !cancelled_;
    if (wanted && found) {
      phase_ = Phase::running;
      lock.unlock();
      return actions_.start_attempt();
    }
    if (wanted && std::exchange(look_again_, false)) continue;
    if (wanted && num_deaths_ > 0 && may_wait_) {
      phase_ = Phase::waiting;
      return;
    }
    phase_ = Phase::over;
    const RelayEnd cause = cause_locked();
    lock.unlock();
    return actions_.finish(cause);
  }
}

void RequestLife::replica_available() {
  {
    std::lock_guard lock(mutex_);
    if (phase_ == Phase::seeking) look_again_ = true;
    if (phase_ != Phase::waiting) return;
    phase_ = Phase::seeking;
  }
  seek();
}

void RequestLife::tick(Time now) {
  bool over;
  RelayEnd cause;
  {
    std::lock_guard lock(mutex_);
    if (phase_ != Phase::waiting) return;
    over = now >= give_up_at_;
    if (!over && now < retry_at_) return;
    retry_at_ = LifeLimits::kNever;
    phase_ = over ? Phase::over : Phase::seeking;
    cause = cause_locked();
  }
  if (over) return actions_.finish(cause);
  actions_.forgive_refusals();
  seek();
}

void RequestLife::stop_waiting() {
  RelayEnd cause;
  {
    std::lock_guard lock(mutex_);
    may_wait_ = false;
    if (phase_ != Phase::waiting) return;
    phase_ = Phase::over;
    cause = cause_locked();
  }
  actions_.finish(cause);
}

void RequestLife::end(RelayEnd cause) {
  bool waits;
  {
    std::lock_guard lock(mutex_);
    if (phase_ == Phase::over || end_cause_) return;
    end_cause_ = cause;
    if (phase_ == Phase::seeking) return;  // whoever looks for a replica will see it
    waits = phase_ == Phase::waiting;
    if (waits) phase_ = Phase::over;
  }
  if (waits)
    actions_.finish(cause);
  else
    actions_.end_attempt(cause);
}

bool RequestLife::cancel() {
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (phase_ != Phase::waiting) return phase_ == Phase::running;
    phase_ = Phase::over;
  }
  actions_.finish(RelayEnd::cancelled);
  return false;
}

}  // namespace trireme
