#pragma once
// A stack of its own to run on, switched to and from without the kernel's help.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace simt {

/// Runs a function that can stop in the middle and go on later. Stays on the thread that made it.
class Fiber {
 public:
  explicit Fiber(size_t stack_bytes = 128 * 1024);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// What resume() runs from its start. The fiber must have ended, or be new.
  void reset(std::function<void()> body);
  /// Runs until the body yields or returns.
  void resume();
  bool ended() const { return ended_; }
  /// Only in the body of this fiber: back to whoever called resume().
  void yield();

 private:
  struct Stack;
  struct Entry;

  std::unique_ptr<Stack> stack_;
  std::function<void()> body_;
  void* context_ = nullptr;  // of the side that does not run
  bool ended_ = true;
  // What AddressSanitizer has to know of the two stacks.
  void* fake_stack_ = nullptr;
  const void* caller_bottom_ = nullptr;
  size_t caller_bytes_ = 0;
};

}  // namespace simt
