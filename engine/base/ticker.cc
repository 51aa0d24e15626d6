#include "engine/base/ticker.h"

#include <utility>

namespace trireme {

Ticker::Ticker(std::chrono::milliseconds period,
               std::function<void(std::chrono::steady_clock::time_point)> tick)
    : period_(period), tick_(std::move(tick)), thread_([this] { run(); }) {}

Ticker::~Ticker() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  over_.notify_one();
  thread_.join();
}

void Ticker::run() {
  std::unique_lock lock(mutex_);
  while (!over_.wait_for(lock, period_, [this] { return stopping_; })) {
    lock.unlock();
    tick_(std::chrono::steady_clock::now());
    lock.lock();
  }
}

}  // namespace trireme
