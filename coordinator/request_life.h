#pragma once
// A request over all its attempts: one replica after the other, until one of them brings it to its end. Knows
// no gRPC and no clock, so that it can be tested on fake attempts.

#include <chrono>
#include <mutex>
#include <optional>

#include "coordinator/relay.h"

namespace trireme {

/// How an attempt ended, as far as it matters for what follows.
enum class AttemptEnd {
  done,     // what it ended with is what the request ends with
  lost,     // the replica died, or might as well have
  refused,  // the replica took nothing of it: it has no room
};

/// What a request's life asks for. Calls come from whichever thread brought the event, never under a lock,
/// and apart from end_attempt() one at a time.
class LifeActions {
 public:
  virtual ~LifeActions() = default;
  /// Chooses a replica for the next attempt, none it was lost or refused on. False: there is none now.
  virtual bool find_replica() = 0;
  /// On the replica that was found; attempt_ended() answers.
  virtual void start_attempt() = 0;
  /// Ends the attempt from outside. It may come before the attempt's start, and after its end.
  virtual void end_attempt(RelayEnd cause) = 0;
  /// Replicas that refused may be asked again.
  virtual void forgive_refusals() = 0;
  /// Once, and the last call. `upstream`: as the last attempt ended.
  virtual void finish(RelayEnd cause) = 0;
};

struct LifeLimits {
  int max_resumes = 1;                                      // deaths of replicas a request outlives
  std::chrono::milliseconds resume_timeout{10'000};         // from a death until a replica takes over
  std::chrono::milliseconds refusal_pause{500};             // before a replica that refused is asked again
  std::chrono::steady_clock::time_point deadline = kNever;  // of the request; nobody waits beyond it

  static constexpr auto kNever = std::chrono::steady_clock::time_point::max();
};

/// The rules. A request whose replica is lost goes on on another one, at most max_resumes times: one that was
/// running at more deaths than that may be their cause. Where no other replica serves, it waits for one for
/// at most resume_timeout. A request that is refused before anything came of it is offered to one other
/// replica, without waiting; one that is refused while it looks for a successor keeps asking until
/// resume_timeout is over. After cancel() and once the caller is gone nothing new is started. Thread-safe.
class RequestLife {
 public:
  using Time = std::chrono::steady_clock::time_point;

  RequestLife(LifeActions& actions, const LifeLimits& limits)
      : actions_(actions), limits_(limits), may_wait_(limits.resume_timeout.count() > 0) {}

  /// The first attempt, on a replica that was found already.
  void start() { actions_.start_attempt(); }
  /// `cause` counts where the end is `done`.
  void attempt_ended(AttemptEnd end, RelayEnd cause, Time now);
  /// A replica has begun to serve.
  void replica_available();
  /// No replica will begin to serve from now on.
  void stop_waiting();
  /// The caller is gone, or wants an end. Any number of times; the first cause counts.
  void end(RelayEnd cause);
  /// The client called Cancel. What waits for a replica ends; true: an attempt runs, and is to be told.
  bool cancel();
  /// To be called now and then: time limits are looked at here.
  void tick(Time now);

 private:
  enum class Phase {
    running,  // an attempt has the word
    seeking,  // one thread looks for a replica
    waiting,  // nobody serves; an event or the time decides
    over,
  };

  bool may_go_on_locked(AttemptEnd end, Time now);
  RelayEnd cause_locked() const;
  void seek();

  LifeActions& actions_;
  const LifeLimits limits_;
  std::mutex mutex_;
  Phase phase_ = Phase::running;
  int num_deaths_ = 0;
  bool was_refused_ = false;
  bool cancelled_ = false;
  bool may_wait_;            // false: what is not found at once is not found
  bool look_again_ = false;  // there was news during the search
  std::optional<RelayEnd> end_cause_;
  Time give_up_at_ = LifeLimits::kNever;
  Time retry_at_ = LifeLimits::kNever;
};

}  // namespace trireme
