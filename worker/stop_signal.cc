#include "worker/stop_signal.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

#include "kernels/check.h"

namespace trireme::worker {

namespace {

int event_fd = -1;

void note_signal(int) {
  const int saved_errno = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(event_fd, &one, sizeof(one));
  errno = saved_errno;
}

}  // namespace

StopSignal::StopSignal() {
  event_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  TRIREME_CHECK(event_fd >= 0);
  struct sigaction action = {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGTERM, &action, nullptr);
  ::sigaction(SIGINT, &action, nullptr);
}

StopSignal& StopSignal::install() {
  static StopSignal signal;
  return signal;
}

void StopSignal::ignore() {
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
}

int StopSignal::wait(std::chrono::milliseconds time) const {
  pollfd poll_fd = {event_fd, POLLIN, 0};
  ::poll(&poll_fd, 1, static_cast<int>(time.count()));
  uint64_t count = 0;
  if (::read(event_fd, &count, sizeof(count)) != sizeof(count)) return 0;
  return static_cast<int>(count);
}

void StopSignal::raise() const { note_signal(0); }

}  // namespace trireme::worker
