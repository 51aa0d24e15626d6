#pragma once
// Real processes in tests: started in a session of their own, killed when the test dies, waited for with
// deadlines.

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace trireme::testing {

using SteadyClock = std::chrono::steady_clock;

/// `seconds` from now, times TRIREME_TEST_TIME_FACTOR (1 when unset) for slow machines.
SteadyClock::time_point deadline_in(double seconds);

/// A TCP port of 127.0.0.1 that nobody listens on now.
int free_port();

/// A child process. Output of both its streams is collected as it comes. Destruction kills its whole session.
class Process {
 public:
  /// Runs argv[0] (looked up on PATH) with stdin from /dev/null and the environment changed by `environment`.
  /// Returns when the program runs; one that cannot be started shows as exit code 127.
  Process(const std::vector<std::string>& argv, const std::map<std::string, std::string>& environment);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  /// The exit code, 128 + signal after a signal; nullopt when it still runs at the deadline.
  std::optional<int> wait(SteadyClock::time_point deadline);
  bool running() { return !wait(SteadyClock::now()); }
  /// To this process alone.
  void signal(int number) const;
  /// To every process of its session that is still there.
  void kill_session() const;

  /// What was written so far, standard output and standard error together.
  std::string output() const;
  /// Standard output alone.
  std::string standard_output() const;
  /// Waits until `text` occurs in output(); false at the deadline, or when the output ended without it.
  bool wait_for_output(const std::string& text, SteadyClock::time_point deadline) const;

 private:
  void collect(int out, int err);

  pid_t pid_ = -1;
  int pidfd_ = -1;
  int stop_fd_ = -1;  // readable when the collector shall end although a descendant still holds the pipes
  std::optional<int> exit_code_;
  mutable std::mutex mutex_;
  mutable std::condition_variable grown_;
  std::string output_, standard_output_;
  bool ended_ = false;
  std::thread collector_;
};

/// Waits until process `pid`, which need not be a child, is gone; false at the deadline.
bool wait_until_gone(pid_t pid, SteadyClock::time_point deadline);

}  // namespace trireme::testing
