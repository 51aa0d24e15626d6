#pragma once
// Ends a process whose step stands still: a dead peer in a collective, a hung device.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "engine/runner/step_progress.h"

namespace trireme::worker {

/// Watches the progress of steps from its own thread. When a step is running and its counter has not moved
/// for `timeout`, it writes one line to standard error (`who`, step, layer and collective) and ends the
/// process with _exit(70): a broken communicator cannot be repaired, and the job's end frees the other ranks.
/// Whatever is locked or broken, that path takes no lock, allocates nothing and logs nothing. While no step
/// runs it waits for ever; time in which the process itself was stopped does not count. A timeout of 0
/// watches nothing.
class Watchdog {
 public:
  /// `progress` must outlive it. `who` names rank and host.
  Watchdog(const StepProgress& progress, std::chrono::milliseconds timeout, const std::string& who);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  void run();
  [[noreturn]] void give_up() const;

  const StepProgress& progress_;
  const std::chrono::milliseconds timeout_;
  const std::string line_begin_, still_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace trireme::worker
