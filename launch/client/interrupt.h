#pragma once
// Ctrl-C as a cancelled call instead of a dead process.

#include <atomic>
#include <functional>
#include <thread>

namespace trireme::client {

/// Blocks SIGINT and SIGTERM in this thread and all it starts. Call before any other thread exists.
void block_interrupts();

/// While alive, SIGINT or SIGTERM calls `on_interrupt` once, from a thread of its own; a second signal ends
/// the process at once with 130.
class InterruptWatch {
 public:
  explicit InterruptWatch(std::function<void()> on_interrupt);
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;
  bool interrupted() const { return interrupted_; }

 private:
  void run();

  std::function<void()> on_interrupt_;
  std::atomic<bool> interrupted_{false};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

}  // namespace trireme::client
