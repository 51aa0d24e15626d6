#include "worker/delivery.h"

#include <chrono>
#include <iterator>

namespace trireme::worker {

Delivery::Delivery() : thread_([this] { run(); }) {}

Delivery::~Delivery() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  posted_.notify_one();
  thread_.join();
}

void Delivery::post(std::vector<std::shared_ptr<RequestSink>>& sinks) {
  if (sinks.empty()) return;
  {
    std::lock_guard lock(mutex_);
    queue_.insert(queue_.end(), std::make_move_iterator(sinks.begin()), std::make_move_iterator(sinks.end()));
  }
  posted_.notify_one();
  sinks.clear();
}

void Delivery::run() {
  std::vector<std::shared_ptr<RequestSink>> sinks;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      posted_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      sinks.swap(queue_);
    }
    const auto begin = std::chrono::steady_clock::now();
    for (const auto& sink : sinks) sink->deliver();
    const auto took = std::chrono::steady_clock::now() - begin;
    busy_ns_.fetch_add(std::chrono::duration_cast<std::chrono::nanoseconds>(took).count(),
                       std::memory_order_relaxed);
    sinks.clear();
  }
}

}  // namespace trireme::worker
