#pragma once
// The worker's side of Cluster.ServeReplica.

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "trireme/v1/cluster.pb.h"

namespace trireme::worker {

struct ReplicaLeaseOptions {
  std::chrono::milliseconds report_interval{500};  // at the latest
  std::chrono::milliseconds look_interval{50};     // how soon a change is reported
  std::chrono::milliseconds first_retry{200};
  std::chrono::milliseconds longest_retry{5000};
  std::chrono::milliseconds registration_timeout{10000};  // for the coordinator's first answer
  std::chrono::milliseconds give_up_after{0};             // without being registered; 0: never
};

/// What a lease asks of its replica and tells it. Called on the lease's thread.
struct ReplicaHooks {
  std::function<v1::ReplicaReport()> report;               // load, draining, drained; no registration
  std::function<void(v1::ReplicaState)> on_desired_state;  // each time the coordinator says one
  /// Once, after give_up_after; needed only with it. The lease tries no more. Gets why the last attempt
  /// failed.
  std::function<void(const std::string& reason)> on_lost;
};

/// Keeps a replica registered for as long as it exists: a stream to the coordinator whose first message
/// registers and whose later ones report, opened again with back-off when it breaks. A lost coordinator is
/// nobody's trouble but that of the requests it relayed, until it has been lost for `give_up_after`. Any
/// thread.
class ReplicaLease {
 public:
  ReplicaLease(std::string coordinator, v1::ReplicaRegistration registration, ReplicaHooks hooks,
               ReplicaLeaseOptions options = {});
  /// Ends the lease.
  ~ReplicaLease();
  ReplicaLease(const ReplicaLease&) = delete;
  ReplicaLease& operator=(const ReplicaLease&) = delete;

  /// Sends a report now and waits until it is written, at most `timeout`. False when there is no stream, or
  /// no time.
  bool report_now(std::chrono::milliseconds timeout);

 private:
  class Stream;
  using Clock = std::chrono::steady_clock;

  void run();
  /// One stream, from its start to its end. True when it was registered in between.
  bool serve();
  /// Reports and obeys until the stream ends, or the lease. True when it was registered.
  bool tend(Stream& stream);
  void explain_end(bool was_registered, const std::string& reason);
  void set_lost_since(Clock::time_point time);

  const std::string coordinator_;
  const v1::ReplicaRegistration registration_;
  const ReplicaHooks hooks_;
  const ReplicaLeaseOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  bool registered_ = false;
  uint64_t wanted_ = 0, reported_ = 0;  // reports that report_now() asked for; the last one written
  std::string last_failure_;            // the lease's thread only: told once, not at each attempt
  Clock::time_point give_up_at_;        // the lease's thread only: unless registered by then
  std::thread thread_;
};

}  // namespace trireme::worker
