#include "launch/client/interrupt.h"

#include <csignal>
#include <ctime>
#include <utility>

#include <unistd.h>

#include "launch/client/commands.h"

namespace trireme::client {
namespace {

sigset_t interrupt_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

void block_interrupts() {
  const sigset_t signals = interrupt_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

InterruptWatch::InterruptWatch(std::function<void()> on_interrupt)
    : on_interrupt_(std::move(on_interrupt)), thread_([this] { run(); }) {}

InterruptWatch::~InterruptWatch() {
  stopping_ = true;
  thread_.join();
}

void InterruptWatch::run() {
  const sigset_t signals = interrupt_signals();
  const timespec poll{0, 20'000'000};  // how late the destructor may be noticed
  while (!stopping_) {
    if (sigtimedwait(&signals, nullptr, &poll) < 0) continue;
    if (interrupted_.exchange(true)) _exit(kExitInterrupted);
    on_interrupt_();
  }
}

}  // namespace trireme::client
