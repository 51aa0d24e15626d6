#include "coordinator/active_requests.h"

namespace trireme {

ActiveRequests::Added ActiveRequests::add(const std::shared_ptr<GenerateCall>& call) {
  std::lock_guard lock(mutex_);
  if (closed_) return Added::closed;
  return calls_.emplace(call->request_id(), call).second ? Added::yes : Added::duplicate;
}

void ActiveRequests::remove(const std::string& request_id) {
  std::lock_guard lock(mutex_);
  calls_.erase(request_id);
  if (calls_.empty()) empty_.notify_all();
}

std::shared_ptr<GenerateCall> ActiveRequests::find(const std::string& request_id) const {
  std::lock_guard lock(mutex_);
  const auto found = calls_.find(request_id);
  return found == calls_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<GenerateCall>> ActiveRequests::all() const {
  std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<GenerateCall>> calls;
  for (const auto& [id, call] : calls_) calls.push_back(call);
  return calls;
}

void ActiveRequests::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
}

bool ActiveRequests::closed() const {
  std::lock_guard lock(mutex_);
  return closed_;
}

bool ActiveRequests::wait_until_empty(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  return empty_.wait_for(lock, timeout, [this] { return calls_.empty(); });
}

}  // namespace trireme
