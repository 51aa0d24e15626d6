// Moments in a stream, told by timed events. Events only say how far apart they are, so one that passes while
// the host looks at its clock gives all others their place on that clock.

#include <chrono>
#include <cmath>
#include <deque>
#include <limits>

#include "kernels/check.h"
#include "kernels/cuda/cuda_backend.h"

namespace trireme::cuda {
namespace {

int64_t steady_ns() {
  const auto time = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

class StreamMarks final : public Marks {
 public:
  StreamMarks(int count, const Stream& stream) : stream_(stream) {
    for (int i = 0; i < count; ++i) events_.emplace_back(true);
  }

  void record(int index) override {
    CHECK_LT(static_cast<size_t>(index), events_.size());
    cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
    CUDA_CHECK(cudaStreamIsCapturing(stream_, &capturing));
    Event& event = events_[static_cast<size_t>(index)];
    // Only an external event has a time of its own in a graph, and only there it may be one.
    if (capturing == cudaStreamCaptureStatusNone)
      event.record(stream_);
    else
      event.record_at_launches(stream_);
  }

  int64_t read(std::span<int64_t> moments) override {
    CHECK_LE(moments.size(), events_.size());
    const Present now = ask_time();
    for (size_t i = 0; i < moments.size(); ++i) {
      const double ago_ms = now.event->milliseconds_since(events_[i]);
      moments[i] = now.host_ns - std::llround(ago_ms * 1e6);
    }
    return now.error_ns;
  }

 private:
  /// An event that has just passed, some time between two readings of the host's clock.
  struct Present {
    const Event* event = nullptr;
    int64_t host_ns = 0;
    int64_t error_ns = std::numeric_limits<int64_t>::max();
  };
  /// On a stream of its own, so that it waits for no other work; the best of a few.
  Present ask_time() {
    Present best;
    for (Event& event : presents_) {
      const int64_t before = steady_ns();
      event.record(idle_stream_);
      event.synchronize();
      const int64_t after = steady_ns();
      if ((after - before) / 2 < best.error_ns)
        best = {&event, before + (after - before) / 2, (after - before) / 2};
    }
    return best;
  }

  const Stream& stream_;
  const Stream idle_stream_;
  std::deque<Event> events_;  // which cannot move
  Event presents_[3] = {Event(true), Event(true), Event(true)};
};

}  // namespace

std::unique_ptr<Marks> CudaBackend::create_marks(int count) {
  return std::make_unique<StreamMarks>(count, queue());
}

}  // namespace trireme::cuda
