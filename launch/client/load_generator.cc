#include "launch/client/load_generator.h"

#include <algorithm>
#include <cmath>

#include "kernels/check.h"
#include "launch/client/portable_random.h"

namespace trireme::client {

bool SteadyLoadClock::wait_until(LoadTime time, const std::function<bool()>& ready) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, time, ready);
}

void SteadyLoadClock::change(const std::function<void()>& apply) {
  const std::lock_guard lock(mutex_);
  apply();
  changed_.notify_all();
}

std::vector<std::chrono::nanoseconds> poisson_arrivals(double rate, size_t count, uint64_t seed) {
  CHECK_GT(rate, 0);
  PortableRandom random(seed);
  std::vector<std::chrono::nanoseconds> arrivals;
  arrivals.reserve(count);
  double seconds = 0;
  for (size_t i = 0; i < count; ++i) {
    arrivals.emplace_back(static_cast<int64_t>(seconds * 1e9));
    seconds -= std::log1p(-random.uniform()) / rate;
  }
  return arrivals;
}

LoadRun::LoadRun(const std::vector<WorkItem>& items, const LoadPlan& plan, LoadTarget& target,
                 LoadClock& clock)
    : items_(items), plan_(plan), target_(target), clock_(clock), records_(items.size()) {}

std::vector<CallRecord> LoadRun::run() {
  if (plan_.rate > 0) {
    run_open();
  } else {
    for (int i = 0; i < plan_.concurrency; ++i) start_next();
  }
  // Each call ends by its own deadline, so this does.
  while (!clock_.wait_until(clock_.now() + std::chrono::hours(1), [this] { return active_ == 0; })) {
  }
  return std::move(records_);
}

void LoadRun::run_open() {
  const auto arrivals = poisson_arrivals(plan_.rate, items_.size(), plan_.seed);
  const LoadTime begin = clock_.now();
  for (size_t i = 0; i < items_.size(); ++i) {
    const LoadTime scheduled = begin + arrivals[i];
    if (clock_.wait_until(scheduled, [this] { return interrupted_.load(); })) return;
    start(i, scheduled);
  }
}

void LoadRun::start_next() {
  if (interrupted_) return;
  const size_t index = next_.fetch_add(1);
  if (index < items_.size()) start(index, clock_.now());
}

void LoadRun::start(size_t index, LoadTime scheduled) {
  CallRecord& record = records_[index];
  record.started = true;
  record.scheduled = scheduled;
  record.sent = clock_.now();
  record.expected_tokens = items_[index].output_tokens;
  ++started_;
  ++active_;
  target_.start(items_[index], record, [this, index] { finished(index); });
}

void LoadRun::finished(size_t index) {
  CallRecord& record = records_[index];
  record.interrupted = interrupted_ && record.status.error_code() == grpc::StatusCode::CANCELLED;
  if (!record.status.ok() && !record.interrupted) ++failed_;
  ++ended_;
  if (plan_.rate <= 0) start_next();
  clock_.change([this] { --active_; });
}

void LoadRun::interrupt() {
  clock_.change([this] { interrupted_ = true; });
  target_.cancel_all();
}

}  // namespace trireme::client
