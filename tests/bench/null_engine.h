#pragma once
// A StepEngine without a model: what is left of a replica when computing takes no time.

#include <algorithm>
#include <vector>

#include "tests/bench/pace.h"
#include "worker/step_engine.h"

namespace trireme::bench {

/// Gives every running request whose client keeps up one token per step. The first prompt id of a request is
/// its stream's number.
class NullEngine final : public worker::StepEngine {
 public:
  explicit NullEngine(Pace& pace) : pace_(pace) {}

  absl::Status submit(Request request) override {
    running_.push_back({request.handle, request.prompt[0], 0, request.stopping.max_tokens});
    return absl::OkStatus();
  }
  bool cancel(RequestHandle handle) override {
    return std::erase_if(running_, [handle](const Stream& stream) { return stream.handle == handle; }) > 0;
  }
  bool has_work() const override { return !running_.empty(); }

  absl::StatusOr<bool> step(std::vector<TokenOutput>& outputs) override {
    const uint32_t seen = pace_.ticks();
    const auto ready = std::count_if(running_.begin(), running_.end(), [this](const Stream& stream) {
      return pace_.may_send(stream.index, stream.sent);
    });
    if (ready < std::min<ptrdiff_t>(pace_.batch(), static_cast<ptrdiff_t>(running_.size()))) {
      pace_.wait(seen, std::chrono::microseconds(500));
      if (ready == 0) return true;
      if (pace_.ticks() != seen) return true;  // more may be ready now; else those that are go alone
    }
    for (Stream& stream : running_) {
      if (!pace_.may_send(stream.index, stream.sent)) continue;
      TokenOutput output;
      output.handle = stream.handle;
      output.token_id = static_cast<int32_t>(stream.sent++ % 32000);
      if (static_cast<int32_t>(stream.sent) == stream.max_tokens) output.finish = FinishReason::length;
      outputs.push_back(output);
    }
    std::erase_if(running_, [](const Stream& stream) {
      return static_cast<int32_t>(stream.sent) == stream.max_tokens;
    });
    ++steps_;
    return true;
  }
  absl::Status broadcast_idle() override { return absl::OkStatus(); }
  absl::Status broadcast_stop() override { return absl::OkStatus(); }
  SchedulerStats stats() const override {
    SchedulerStats stats;
    stats.running = static_cast<int32_t>(running_.size());
    stats.blocks_total = stats.blocks_free = 1;
    stats.steps = steps_;
    return stats;
  }
  void list_waiting(std::vector<RequestHandle>&) const override {}  // nothing ever does
  absl::Status check_integrity() const override { return absl::OkStatus(); }

 private:
  struct Stream {
    RequestHandle handle;
    int32_t index;
    uint32_t sent;
    int32_t max_tokens;
  };

  Pace& pace_;
  std::vector<Stream> running_;
  int64_t steps_ = 0;
};

}  // namespace trireme::bench
