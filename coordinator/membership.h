#pragma once
// The replicas and the ways to them: leases of the registry, each with its channel, and who hears of changes.

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/replica_registry.h"
#include "trireme/v1/cluster.pb.h"
#include "trireme/v1/inference.grpc.pb.h"

namespace trireme {

/// A live replica and the channel to it. Immutable, so it may be used while the lease ends.
struct ReplicaLink {
  LeaseId lease = 0;
  v1::ReplicaRegistration registration;
  std::string address;
  std::unique_ptr<v1::Inference::Stub> stub;
};

/// A request counted on a replica until release(), at the latest until this ends. One thread.
class Assignment {
 public:
  Assignment(ReplicaRegistry& registry, std::shared_ptr<const ReplicaLink> link)
      : registry_(registry), link_(std::move(link)) {}
  ~Assignment() { release(); }
  Assignment(const Assignment&) = delete;
  Assignment& operator=(const Assignment&) = delete;

  void release() {
    if (counted_) registry_.release(link_->lease);
    counted_ = false;
  }
  const ReplicaLink& link() const { return *link_; }

 private:
  bool counted_ = true;
  ReplicaRegistry& registry_;
  std::shared_ptr<const ReplicaLink> link_;
};

ModelIdentity model_identity(const v1::ModelInfo& model);

/// Thread-safe.
class Membership {
 public:
  /// Called after a lease ended, outside all locks: work on that replica is lost.
  void on_lease_end(std::function<void(LeaseId)> callback) { lease_end_ = std::move(callback); }
  /// Called after a replica began to take requests, outside all locks.
  void on_activation(std::function<void()> callback) { activation_ = std::move(callback); }
  /// Called with whether there is a replica that takes requests, at once and on each change, in order.
  void on_serving_change(std::function<void(bool)> callback);

  /// `address` is where the leader's Inference service listens. Errors: ReplicaRegistry::admit().
  absl::StatusOr<LeaseId> join(const v1::ReplicaRegistration& registration, const std::string& address);
  void activate(LeaseId lease);
  void drain(LeaseId lease);
  void drain_all();
  void report(LeaseId lease, const v1::ReplicaLoad& load);
  void leave(LeaseId lease);

  /// A serving replica that is not excluded, as the Router chooses; null when there is none.
  std::unique_ptr<Assignment> assign(const RouteWish& wish = {});

  const ReplicaRegistry& registry() const { return registry_; }
  std::vector<v1::ReplicaStatus> describe() const;

 private:
  struct Member {
    std::shared_ptr<const ReplicaLink> link;
    v1::ReplicaLoad load;
  };

  void refresh_serving();

  ReplicaRegistry registry_;
  mutable std::mutex mutex_;
  std::map<LeaseId, Member> members_;
  std::function<void(LeaseId)> lease_end_;
  std::function<void()> activation_;
  std::mutex serving_mutex_;  // held during the callback, so that changes arrive in order
  std::function<void(bool)> serving_change_;
  bool serving_ = false;
};

}  // namespace trireme
