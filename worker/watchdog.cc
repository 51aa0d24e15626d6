#include "worker/watchdog.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "worker/exit_code.h"

namespace trireme::worker {

namespace {

/// Text on the stack: no allocation, no lock, no locale.
class FixedLine {
 public:
  void add(const std::string& text) { add(text.data(), text.size()); }
  void add(const char* text) { add(text, std::strlen(text)); }
  void add(int64_t number) {
    if (number < 0) add("-");
    uint64_t rest = number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
    std::array<char, 20> digits;  // 2^64 has 20
    size_t first = digits.size();
    do {
      digits[--first] = static_cast<char>('0' + rest % 10);
      rest /= 10;
    } while (rest != 0);
    add(digits.data() + first, digits.size() - first);
  }
  /// One call, so that lines of several ranks do not mix. Nobody is left to tell of a failure.
  void write() const { [[maybe_unused]] const auto written = ::write(STDERR_FILENO, text_.data(), size_); }

 private:
  void add(const char* text, size_t size) {
    size = std::min(size, text_.size() - size_);
    std::memcpy(text_.data() + size_, text, size);
    size_ += size;
  }
  std::array<char, 1024> text_;
  size_t size_ = 0;
};

}  // namespace

Watchdog::Watchdog(const StepProgress& progress, std::chrono::milliseconds timeout, const std::string& who)
    : progress_(progress),
      timeout_(timeout),
      line_begin_(absl::StrCat("trireme-worker: ", who.substr(0, 512), ": step ")),
      still_(absl::StrCat(" has stood still for ", timeout.count(), " ms in layer ")) {
  if (timeout_.count() > 0) thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  if (!thread_.joinable()) return;
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopped_.notify_one();
  thread_.join();
}

void Watchdog::run() {
  using Clock = std::chrono::steady_clock;
  const auto interval = std::clamp<std::chrono::milliseconds>(timeout_ / 10, std::chrono::milliseconds(5),
                                                              std::chrono::milliseconds(500));
  uint64_t last_counter = progress_.counter.load();
  Clock::time_point last_look = Clock::now();
  Clock::duration stalled{};
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, interval, [this] { return stopping_; })) {
    const uint64_t counter = progress_.counter.load();
    const auto now = Clock::now();
    // Time in which the whole process was stopped proves nothing about the step.
    stalled += std::min<Clock::duration>(now - last_look, 2 * interval);
    last_look = now;
    if (counter != last_counter || !progress_.running.load()) {
      last_counter = counter;
      stalled = {};
    } else if (stalled >= timeout_) {
      give_up();
    }
  }
}

void Watchdog::give_up() const {
  FixedLine line;
  line.add(line_begin_);
  line.add(static_cast<int64_t>(progress_.step.load()));
  line.add(still_);
  line.add(progress_.layer.load());
  line.add(" after collective ");
  line.add(static_cast<int64_t>(progress_.collectives.load()));
  line.add("; a peer or the device hangs, so this process ends (exit 70)\n");
  line.write();
  ::_exit(static_cast<int>(ExitCode::kInternal));
}

}  // namespace trireme::worker
