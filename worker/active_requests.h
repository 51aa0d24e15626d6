#pragma once
// Which request ids are in use.

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

namespace trireme::worker {

/// Something that Cancel can end.
class Cancellable {
 public:
  virtual ~Cancellable() = default;
  virtual void cancel() = 0;
};

/// Any thread.
class ActiveRequests {
 public:
  /// False when the id is in use.
  bool insert(const std::string& request_id, std::weak_ptr<Cancellable> request);
  void erase(const std::string& request_id);
  /// Null when no such request is active.
  std::shared_ptr<Cancellable> find(const std::string& request_id) const;
  /// An id that nobody has used: 128 random bits.
  static std::string draw_id();

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::weak_ptr<Cancellable>> requests_;
};

}  // namespace trireme::worker
