#include "worker/leader.h"

#include <algorithm>
#include <utility>

namespace trireme::worker {

namespace {

// An engine that has work but nothing to run is waiting for something that we cannot see; look again soon,
// without spinning.
constexpr std::chrono::milliseconds kNothingToRun{5};

}  // namespace

Leader::Leader(StepEngine& engine, Delivery& delivery, LeaderOptions options)
    : engine_(engine), delivery_(delivery), options_(options), inbox_(options.queue) {
  publish();
}

absl::StatusOr<RequestHandle> Leader::submit(std::vector<Request> samples,
                                             std::shared_ptr<RequestSink> sink) {
  const RequestHandle first = next_handle_.fetch_add(samples.size());
  for (size_t i = 0; i < samples.size(); ++i) {
    samples[i].handle = first + i;
    samples[i].prompt_group = samples.size() > 1 ? first : 0;
  }
  if (auto status = inbox_.push({std::move(samples), std::move(sink)}); !status.ok()) return status;
  return first;
}

void Leader::cancel(RequestHandle handle) { inbox_.cancel(handle); }

void Leader::drain() { inbox_.close(); }

void Leader::stop(TimePoint deadline) {
  drain();
  {
    std::lock_guard lock(mutex_);
    stop_deadline_ = std::min(deadline, stop_deadline_.value_or(deadline));
  }
  inbox_.wake();
}

void Leader::abandon(TimePoint deadline) {
  abandoned_.store(true);
  stop(deadline);
}

LeaderStatus Leader::status() const {
  LeaderStatus status;
  status.draining = inbox_.closed();
  status.delivery_ns = delivery_.busy_ns();
  // Before active_: a request leaves the queue only after it has become active.
  status.waiting = inbox_.waiting();
  std::lock_guard lock(mutex_);
  status.engine = engine_stats_;
  status.active = active_;
  status.ranks = ranks_;
  status.ranks_steps = ranks_steps_;
  status.drained = status.draining && status.waiting.requests == 0 && status.active == 0;
  return status;
}

absl::Status Leader::run() {
  absl::Status status = serve();
  fail_all(status.ok() ? absl::UnavailableError("the replica is shutting down")
                       : absl::UnavailableError("the replica's engine has failed"));
  publish();
  delivery_.post(to_wake_);
  return status;
}

absl::Status Leader::serve() {
  auto next_beat = TimePoint::clock::now();
  auto look_again = next_beat;
  bool was_busy = false;
  while (true) {
    take_commands(engine_.has_work() ? look_again : next_beat);
    if (is_over()) return abandoned_.load() ? absl::OkStatus() : engine_.broadcast_stop();
    bool ran = false;
    if (engine_.has_work()) {
      absl::StatusOr<bool> stepped = step();
      if (!stepped.ok()) return stepped.status();
      ran = *stepped;
    }
    hand_out();
    const auto now = TimePoint::clock::now();
    look_again = ran ? now : now + kNothingToRun;
    const bool work_ran_out = std::exchange(was_busy, engine_.has_work()) && !engine_.has_work();
    if (auto status = gather_telemetry(now, work_ran_out); !status.ok()) return status;
    if (work_ran_out) {
      const PhaseScope host(engine_.phases(), Phase::host);
      if (auto status = engine_.check_integrity(); !status.ok()) return status;
    }
    if (!ran && now < next_beat) continue;
    if (!ran) {
      if (auto status = engine_.broadcast_idle(); !status.ok()) return status;
    }
    beats_.fetch_add(1, std::memory_order_relaxed);
    next_beat = now + options_.idle_interval;
  }
}

absl::StatusOr<bool> Leader::step() {
  clock_.begin(static_cast<uint64_t>(engine_stats_.steps) + 1, engine_.collective_ns());
  absl::StatusOr<bool> ran = engine_.step(outputs_);
  clock_.end(engine_.collective_ns());
  return ran;
}

absl::Status Leader::gather_telemetry(TimePoint now, bool work_ran_out) {
  if (options_.telemetry_interval.count() == 0) return absl::OkStatus();
  const TimePoint::duration interval = options_.telemetry_interval;
  if (now - last_telemetry_ < (work_ran_out ? interval / 10 : interval)) return absl::OkStatus();
  last_telemetry_ = now;
  auto ranks = engine_.gather_telemetry();
  if (!ranks.ok()) return ranks.status();
  std::lock_guard lock(mutex_);
  ranks_ = *std::move(ranks);
  ranks_steps_ = engine_stats_.steps;
  return absl::OkStatus();
}

void Leader::take_commands(TimePoint deadline) {
  {
    std::lock_guard lock(mutex_);
    // Waits past the deadline of a stop would be too long; a stop without work ends at once anyway.
    if (stop_deadline_) deadline = std::min(deadline, *stop_deadline_);
  }
  {
    const bool waits = deadline > TimePoint::clock::now();
    const PhaseScope waiting(engine_.phases(), waits ? Phase::idle : Phase::host);
    inbox_.take(commands_, deadline);
  }
  const PhaseScope host(engine_.phases(), Phase::host);
  for (Submission& submission : commands_.submissions) apply_submission(submission);
  for (RequestHandle handle : commands_.cancels) end_cancelled(handle);
  if (!commands_.empty()) publish();
}

void Leader::apply_submission(Submission& submission) {
  const RequestHandle first = submission.samples.front().handle;
  for (Request& sample : submission.samples) {
    const RequestHandle handle = sample.handle;
    const uint32_t sample_index = sample.sampling.sample_index;
    if (auto status = engine_.submit(std::move(sample)); !status.ok()) {
      for (RequestHandle taken = first; taken < handle; ++taken) {
        engine_.cancel(taken);
        actives_.erase(taken);
      }
      return fail(submission.sink, std::move(status));
    }
    actives_.emplace(handle, Active{submission.sink, sample_index});
  }
}

void Leader::end_cancelled(RequestHandle handle) {
  const auto active = actives_.find(handle);
  if (active == actives_.end()) return;
  engine_.cancel(handle);
  TokenOutput output;
  output.handle = handle;
  output.sample_index = active->second.sample_index;
  output.finish = FinishReason::cancelled;
  output.has_token = false;
  push(active, output);
}

void Leader::hand_out() {
  const PhaseScope host(engine_.phases(), Phase::host);
  dispatch();
  publish();
  delivery_.post(to_wake_);
}

void Leader::dispatch() {
  for (const TokenOutput& output : outputs_) {
    // Outputs of a sample that was cancelled here go nowhere any more.
    if (const auto active = actives_.find(output.handle); active != actives_.end()) push(active, output);
  }
  outputs_.clear();
}

void Leader::push(Actives::iterator active, const TokenOutput& output) {
  const std::shared_ptr<RequestSink>& sink = active->second.sink;
  const bool ended = output.finish != FinishReason::none;
  clock_.note(output, *sink);
  switch (sink->outbox.push(output)) {
    case Outbox::Push::kWake:
      to_wake_.push_back(sink);
      break;
    case Outbox::Push::kQueued:
      break;
    case Outbox::Push::kOverflow:
      fail(sink, absl::CancelledError("cancelled: too much output was left unread"));
      [[fallthrough]];
    case Outbox::Push::kClosed:
      if (!ended) engine_.cancel(active->first);
      actives_.erase(active);
      return;
  }
  if (ended) actives_.erase(active);
}

void Leader::fail(const std::shared_ptr<RequestSink>& sink, absl::Status error) {
  if (sink->outbox.fail(std::move(error)) == Outbox::Push::kWake) to_wake_.push_back(sink);
}

void Leader::fail_all(const absl::Status& error) {
  inbox_.close();
  inbox_.take(commands_, TimePoint::clock::now());
  for (Submission& submission : commands_.submissions) fail(submission.sink, error);
  for (auto& [handle, active] : actives_) fail(active.sink, error);
  actives_.clear();
}

void Leader::publish() {
  const SchedulerStats stats = engine_.stats();
  {
    std::lock_guard lock(mutex_);
    engine_stats_ = stats;
    active_ = static_cast<int64_t>(actives_.size());
  }
  EngineQueue queue{{stats.waiting, stats.waiting_prompt_tokens}, stats.free_slots};
  if (stats.waiting > 0 && options_.queue.max_requests_per_client > 0) queue.by_client = waiting_by_client();
  inbox_.set_engine_queue(std::move(queue));
}

WaitingByClient Leader::waiting_by_client() {
  WaitingByClient counts;
  waiting_.clear();
  engine_.list_waiting(waiting_);
  for (const RequestHandle handle : waiting_) {
    const auto active = actives_.find(handle);
    if (active != actives_.end() && !active->second.sink->client.empty())
      ++counts[active->second.sink->client];
  }
  return counts;
}

bool Leader::is_over() {
  std::lock_guard lock(mutex_);
  if (!stop_deadline_) return false;
  const bool drained = actives_.empty() && inbox_.waiting().requests == 0;
  return drained || TimePoint::clock::now() >= *stop_deadline_;
}

}  // namespace trireme::worker
