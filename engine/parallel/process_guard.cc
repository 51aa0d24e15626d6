#include "engine/parallel/process_guard.h"

#include <unistd.h>

#include <algorithm>

namespace trireme {
namespace {

constexpr int kInternalError = 70;  // EX_SOFTWARE of sysexits.h, as the worker's watchdog

[[noreturn]] void end_process(std::string line) {
  line += '\n';
  // One call, so that the lines of several ranks do not mix; no lock that the rest may hold.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
  ::_exit(kInternalError);
}

std::function<std::string()> late_after(std::chrono::milliseconds deadline, const std::string& late) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  return [end, late] { return std::chrono::steady_clock::now() < end ? std::string() : late; };
}

}  // namespace

ProcessGuard::ProcessGuard(std::chrono::milliseconds interval, std::function<std::string()> look)
    : look_(std::move(look)), thread_([this, interval] { run(interval); }) {}

ProcessGuard::ProcessGuard(std::chrono::milliseconds deadline, const std::string& late)
    : ProcessGuard(std::clamp<std::chrono::milliseconds>(deadline / 20, std::chrono::milliseconds(1),
                                                         std::chrono::milliseconds(200)),
                   late_after(deadline, late)) {}

ProcessGuard::~ProcessGuard() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopped_.notify_one();
  thread_.join();
}

void ProcessGuard::run(std::chrono::milliseconds interval) {
  std::unique_lock lock(mutex_);
  while (!stopped_.wait_for(lock, interval, [this] { return stopping_; })) {
    std::string reason = look_();
    if (!reason.empty()) end_process(std::move(reason));
  }
}

}  // namespace trireme
