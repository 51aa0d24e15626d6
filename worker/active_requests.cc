#include "worker/active_requests.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"

namespace trireme::worker {

bool ActiveRequests::insert(const std::string& request_id, std::weak_ptr<Cancellable> request) {
  std::lock_guard lock(mutex_);
  return requests_.emplace(request_id, std::move(request)).second;
}

void ActiveRequests::erase(const std::string& request_id) {
  std::lock_guard lock(mutex_);
  requests_.erase(request_id);
}

std::shared_ptr<Cancellable> ActiveRequests::find(const std::string& request_id) const {
  std::lock_guard lock(mutex_);
  const auto found = requests_.find(request_id);
  return found == requests_.end() ? nullptr : found->second.lock();
}

std::string ActiveRequests::draw_id() {
  thread_local std::mt19937_64 random{[] {
    std::random_device device;
    std::seed_seq seeds{device(), device(), device(), device(), device(), device(), device(), device()};
    return std::mt19937_64(seeds);
  }()};
  return absl::StrCat(absl::Hex(random(), absl::kZeroPad16), absl::Hex(random(), absl::kZeroPad16));
}

}  // namespace trireme::worker
