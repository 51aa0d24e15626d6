#pragma once
// The requests that are being relayed, by id.

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "coordinator/generate_call.h"

namespace trireme {

/// Thread-safe.
class ActiveRequests {
 public:
  enum class Added { yes, duplicate, closed };

  Added add(const std::shared_ptr<GenerateCall>& call);
  void remove(const std::string& request_id);
  /// Null when there is none of that id.
  std::shared_ptr<GenerateCall> find(const std::string& request_id) const;
  std::vector<std::shared_ptr<GenerateCall>> all() const;
  /// From now on nothing is added.
  void close();
  bool closed() const;
  /// Blocks until nothing is active; false when that was not so before the time was over.
  bool wait_until_empty(std::chrono::milliseconds timeout);

 private:
  mutable std::mutex mutex_;
  std::condition_variable empty_;
  std::map<std::string, std::shared_ptr<GenerateCall>> calls_;
  bool closed_ = false;
};

}  // namespace trireme
