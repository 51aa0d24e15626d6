#include "worker/step_clock.h"

#include <chrono>

namespace trireme::worker {

int64_t steady_ns() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(now).count();
}

void StepClock::begin(uint64_t step, int64_t collective_ns) {
  const int64_t time_ns = steady_ns();
  for (uint64_t planned = step; planned < step + kMaxPlans; ++planned)
    marks_[planned % kMaxMarks] = {planned, time_ns, collective_ns};
}

void StepClock::end(int64_t collective_ns) { now_ = {0, steady_ns(), collective_ns}; }

void StepClock::note(const TokenOutput& output, RequestSink& sink) const {
  RequestTimes& times = sink.times;
  if (output.first_step != 0 && times.started_ns == 0) {
    const Mark& mark = marks_[output.first_step % kMaxMarks];
    if (mark.step == output.first_step) {
      times.started_ns = mark.time_ns;
      sink.engine_side.collective_before_ns = mark.collective_ns;
    }
  }
  if (!output.has_token) return;
  if (times.first_token_ns == 0) times.first_token_ns = now_.time_ns;
  times.last_token_ns = now_.time_ns;
  if (times.started_ns != 0) times.collective_ns = now_.collective_ns - sink.engine_side.collective_before_ns;
  auto& last_of_sample = sink.engine_side.last_token_ns;
  if (last_of_sample.size() <= output.sample_index) last_of_sample.resize(output.sample_index + 1);
  int64_t& last = last_of_sample[output.sample_index];
  if (last != 0) metrics_.inter_token.observe(static_cast<double>(now_.time_ns - last) * 1e-9);
  last = now_.time_ns;
}

}  // namespace trireme::worker
