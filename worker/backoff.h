#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace trireme::worker {

/// Waiting times between attempts: doubling from `first` to `longest`, each drawn from its upper half so that
/// many callers do not come at once.
class Backoff {
 public:
  Backoff(std::chrono::milliseconds first, std::chrono::milliseconds longest)
      : first_(first), longest_(longest), next_(first) {}

  std::chrono::milliseconds next() {
    const auto bound = next_;
    next_ = std::min(2 * next_, longest_);
    return std::chrono::milliseconds(std::uniform_int_distribution<std::chrono::milliseconds::rep>(
        bound.count() / 2, bound.count())(random_));
  }
  void reset() { next_ = first_; }

 private:
  const std::chrono::milliseconds first_, longest_;
  std::chrono::milliseconds next_;
  std::mt19937 random_{std::random_device{}()};
};

}  // namespace trireme::worker
