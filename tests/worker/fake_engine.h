#pragma once
// A scripted StepEngine: every running request gets one token per step, the n-th one being token(handle, n).

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "worker/step_engine.h"

namespace trireme::worker {

class FakeEngine : public StepEngine {
 public:
  struct Script {
    std::function<int32_t(const Request&, int32_t)> token = [](const Request&, int32_t n) { return n; };
    size_t max_running = 64;
    int tokens_per_step = 1;
    int32_t cached_tokens = 0;
    int32_t blocks_of_finished = 0;  // what stats() says
    /// Ends a request in place of its n-th token (from 0).
    std::function<FinishReason(const Request&, int32_t)> finish = [](const Request&, int32_t) {
      return FinishReason::none;
    };
    std::function<absl::Status(const Request&)> accept = [](const Request&) { return absl::OkStatus(); };
  };

  FakeEngine() = default;
  explicit FakeEngine(Script script) : script_(std::move(script)) {}

  // ---- the test's side, any thread

  /// From now on a step waits for a permit.
  void hold() {
    std::lock_guard lock(mutex_);
    permits_ = 0;
  }
  void permit(int steps) {
    {
      std::lock_guard lock(mutex_);
      permits_ = permits_.value_or(0) + steps;
    }
    permitted_.notify_all();
  }
  void let_go() {
    {
      std::lock_guard lock(mutex_);
      permits_.reset();
    }
    permitted_.notify_all();
  }
  void break_next_step() {
    std::lock_guard lock(mutex_);
    broken_ = true;
  }
  /// What check_integrity() says from now on.
  void set_integrity(absl::Status status) {
    std::lock_guard lock(mutex_);
    integrity_ = std::move(status);
  }
  struct Counts {
    int steps = 0, idles = 0, stops = 0;
    std::vector<RequestHandle> submitted, cancelled;
  };
  Counts counts() const {
    std::lock_guard lock(mutex_);
    return counts_;
  }
  /// False when `condition` has not become true within 10 s.
  bool wait_for(const std::function<bool(const Counts&)>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return condition(counts_); });
  }

  // ---- StepEngine

  absl::Status submit(Request request) override {
    std::lock_guard lock(mutex_);
    if (auto status = script_.accept(request); !status.ok()) return status;
    counts_.submitted.push_back(request.handle);
    changed_.notify_all();
    const RequestHandle handle = request.handle;
    const auto produced = static_cast<int32_t>(request.resumed_outputs.size());
    live_.emplace(handle, Live{std::move(request), produced});
    return absl::OkStatus();
  }

  bool cancel(RequestHandle handle) override {
    std::lock_guard lock(mutex_);
    counts_.cancelled.push_back(handle);
    changed_.notify_all();
    return live_.erase(handle) == 1;
  }

  bool has_work() const override {
    std::lock_guard lock(mutex_);
    return !live_.empty();
  }

  absl::StatusOr<bool> step(std::vector<TokenOutput>& outputs) override {
    std::unique_lock lock(mutex_);
    // A deadline, so that a test that forgets a permit fails and does not hang.
    permitted_.wait_for(lock, std::chrono::seconds(20), [&] { return !permits_ || *permits_ > 0; });
    if (permits_) *permits_ -= 1;
    if (broken_) return absl::InternalError("scripted failure");
    size_t running = 0;
    for (auto it = live_.begin(); it != live_.end() && running < script_.max_running; ++running) {
      FinishReason finish = FinishReason::none;
      for (int i = 0; i < script_.tokens_per_step && finish == FinishReason::none; ++i) {
        outputs.push_back(next_output(it->first, it->second));
        finish = outputs.back().finish;
      }
      it = finish == FinishReason::none ? std::next(it) : live_.erase(it);
    }
    counts_.steps += 1;
    changed_.notify_all();
    return true;
  }

  absl::Status broadcast_idle() override {
    std::lock_guard lock(mutex_);
    counts_.idles += 1;
    changed_.notify_all();
    return absl::OkStatus();
  }

  absl::Status broadcast_stop() override {
    std::lock_guard lock(mutex_);
    counts_.stops += 1;
    changed_.notify_all();
    return absl::OkStatus();
  }

  SchedulerStats stats() const override {
    std::lock_guard lock(mutex_);
    SchedulerStats stats;
    stats.running = static_cast<int32_t>(std::min(live_.size(), script_.max_running));
    stats.free_slots = static_cast<int32_t>(script_.max_running) - stats.running;
    size_t i = 0;
    for (const auto& [handle, live] : live_) {
      if (i++ < script_.max_running) continue;
      stats.waiting += 1;
      stats.waiting_prompt_tokens += static_cast<int64_t>(live.request.prompt.size());
    }
    stats.steps = counts_.steps;
    stats.blocks_of_finished = script_.blocks_of_finished;
    return stats;
  }

  void list_waiting(std::vector<RequestHandle>& handles) const override {
    std::lock_guard lock(mutex_);
    size_t i = 0;
    for (const auto& [handle, live] : live_) {
      if (i++ >= script_.max_running) handles.push_back(handle);
    }
  }

  absl::Status check_integrity() const override {
    std::lock_guard lock(mutex_);
    return integrity_;
  }

  /// A millisecond per step.
  int64_t collective_ns() const override { return int64_t{1'000'000} * counts().steps; }

  /// Two ranks, after 4 s, of which they have waited for 0.25 s and talked for 0.5; rank r has computed for r
  /// + 1 s.
  absl::StatusOr<std::vector<RankTelemetry>> gather_telemetry() override {
    std::vector<RankTelemetry> ranks(2);
    for (size_t rank = 0; rank < ranks.size(); ++rank) {
      PhaseTimes& times = ranks[rank].times;
      times.phase_ns[static_cast<size_t>(Phase::compute)] = int64_t{1'000'000'000} * (rank + 1);
      times.phase_ns[static_cast<size_t>(Phase::collective)] = int64_t{750'000'000};
      times.wall_ns = int64_t{4'000'000'000};
      ranks[rank].collective_wait_ns = int64_t{250'000'000};
      ranks[rank].clock_error_ns = 5000;
      ranks[rank].num_compiled_kernels = 7;
    }
    return ranks;
  }

 private:
  struct Live {
    Request request;
    int32_t produced = 0;
    bool reported = false;
  };

  TokenOutput next_output(RequestHandle handle, Live& live) {
    const Request& request = live.request;
    TokenOutput output;
    output.handle = handle;
    output.sample_index = request.sampling.sample_index;
    output.num_cached_tokens = script_.cached_tokens;
    if (!std::exchange(live.reported, true)) output.first_step = static_cast<uint64_t>(counts_.steps) + 1;
    output.finish = script_.finish(request, live.produced);
    output.has_token = output.finish == FinishReason::none;
    if (!output.has_token) return output;
    output.token_id = script_.token(request, live.produced);
    output.logprob = -0.5f;
    if (++live.produced == request.stopping.max_tokens) output.finish = FinishReason::length;
    for (int32_t id : request.stopping.stop_token_ids) {
      if (id == output.token_id) output.finish = FinishReason::stop;
    }
    return output;
  }

  Script script_;
  mutable std::mutex mutex_;
  std::condition_variable permitted_, changed_;
  std::optional<int> permits_;
  bool broken_ = false;
  absl::Status integrity_;
  Counts counts_;
  std::map<RequestHandle, Live> live_;
};

}  // namespace trireme::worker
