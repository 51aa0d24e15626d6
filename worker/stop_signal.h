#pragma once

#include <chrono>

namespace trireme::worker {

/// SIGTERM and SIGINT as something that can be waited for. The handler does nothing but write to an eventfd.
class StopSignal {
 public:
  /// Takes the signals over, for the rest of the process.
  static StopSignal& install();
  /// Forgets them: the process goes on whoever sends them.
  static void ignore();

  /// How many have arrived since the last call; waits at most `time` for one.
  int wait(std::chrono::milliseconds time) const;
  /// As if one had arrived.
  void raise() const;

 private:
  StopSignal();
};

}  // namespace trireme::worker
