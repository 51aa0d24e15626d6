#include "coordinator/request_life.h"

#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// Writes down what is asked for; `replicas` are the answers to find_replica(), false once there is none
/// left.
class RecordedActions : public LifeActions {
 public:
  bool find_replica() override {
    calls.push_back("find");
    if (during_search) std::exchange(during_search, nullptr)();
    if (replicas.empty()) return false;
    const bool found = replicas.front();
    replicas.pop_front();
    return found;
  }
  void start_attempt() override { calls.push_back("start"); }
  void end_attempt(RelayEnd cause) override { calls.push_back("end " + name(cause)); }
  void forgive_refusals() override { calls.push_back("forgive"); }
  void finish(RelayEnd cause) override { calls.push_back("finish " + name(cause)); }

  /// What was asked for since the last call of this.
  std::vector<std::string> take() { return std::exchange(calls, {}); }

  static std::string name(RelayEnd cause) {
    switch (cause) {
      case RelayEnd::upstream:
        return "upstream";
      case RelayEnd::client_gone:
        return "client_gone";
      case RelayEnd::slow_client:
        return "slow_client";
      case RelayEnd::cancelled:
        return "cancelled";
      case RelayEnd::replica_lost:
        return "replica_lost";
      case RelayEnd::malformed:
        return "malformed";
      case RelayEnd::aborted:
        return "aborted";
    }
    return "?";
  }

  std::deque<bool> replicas;
  std::function<void()> during_search;
  std::vector<std::string> calls;
};

const RequestLife::Time kStart{};

LifeLimits limits() {
  LifeLimits limits;
  limits.resume_timeout = milliseconds(1000);
  limits.refusal_pause = milliseconds(100);
  return limits;
}

struct Fixture {
  explicit Fixture(const LifeLimits& limits = trireme::limits()) : life(actions, limits) {
    life.start();
    EXPECT_THAT(actions.take(), ElementsAre("start"));
  }
  void lose(milliseconds at = milliseconds(0)) {
    life.attempt_ended(AttemptEnd::lost, RelayEnd::upstream, kStart + at);
  }
  void refuse(milliseconds at = milliseconds(0)) {
    life.attempt_ended(AttemptEnd::refused, RelayEnd::upstream, kStart + at);
  }
  RecordedActions actions;
  RequestLife life;
};

TEST(RequestLifeTest, AnAttemptsEndIsTheRequestsEnd) {
  for (const RelayEnd cause : {RelayEnd::upstream, RelayEnd::malformed, RelayEnd::client_gone}) {
    Fixture f;
    f.life.attempt_ended(AttemptEnd::done, cause, kStart);
    EXPECT_THAT(f.actions.take(), ElementsAre("finish " + RecordedActions::name(cause)));
  }
}

TEST(RequestLifeTest, GoesOnWhenItsReplicaDies) {
  Fixture f;
  f.actions.replicas = {true};
  f.lose();
  EXPECT_THAT(f.actions.take(), ElementsAre("find", "start"));
  f.life.attempt_ended(AttemptEnd::done, RelayEnd::upstream, kStart);
  EXPECT_THAT(f.actions.take(), ElementsAre("finish upstream"));
}

TEST(RequestLifeTest, OutlivesNoMoreDeathsThanAllowed) {
  for (const int allowed : {0, 1, 3}) {
    LifeLimits limits = trireme::limits();
    limits.max_resumes = allowed;
    Fixture f(limits);
    f.actions.replicas.assign(10, true);
    for (int death = 0; death < allowed; ++death) {
      f.lose();
      EXPECT_THAT(f.actions.take(), ElementsAre("find", "start"));
    }
    f.lose();
    EXPECT_THAT(f.actions.take(), ElementsAre("finish replica_lost"));
  }
}

TEST(RequestLifeTest, WaitsForAReplicaToServe) {
  Fixture f;
  f.lose();
  EXPECT_THAT(f.actions.take(), ElementsAre("find"));
  f.life.replica_available();  // one that is excluded
  EXPECT_THAT(f.actions.take(), ElementsAre("find"));
  f.life.tick(kStart + milliseconds(999));
  EXPECT_THAT(f.actions.take(), IsEmpty());
  f.actions.replicas = {true};
  f.life.replica_available();
  EXPECT_THAT(f.actions.take(), ElementsAre("find", "start"));
  f.life.tick(kStart + milliseconds(5000));  // it runs: there is nothing to wait for
  EXPECT_THAT(f.actions.take(), IsEmpty());
}

TEST(RequestLifeTest, GivesUpWhenTheTimeIsOver) {
  Fixture f;
  f.lose(milliseconds(50));
  f.life.tick(kStart + milliseconds(1049));
  EXPECT_THAT(f.actions.take(), ElementsAre("find"));
  f.life.tick(kStart + milliseconds(1050));
  EXPECT_THAT(f.actions.take(), ElementsAre("finish replica_lost"));
  f.life.replica_available();
  f.life.tick(kStart + milliseconds(2000));
  f.life.end(RelayEnd::client_gone);
  EXPECT_THAT(f.actions.take(), IsEmpty());
}

TEST(RequestLifeTest, WaitsNoLongerThanTheDeadline) {
  LifeLimits limits = trireme::limits();
  limits.deadline = kStart + milliseconds(300);
  Fixture f(limits);
  f.lose();
  f.life.tick(kStart + milliseconds(299));
  EXPECT_THAT(f.actions.take(), ElementsAre("find"));
  f.life.tick(kStart + milliseconds(300));
  EXPECT_THAT(f.actions.take(), ElementsAre("finish replica_lost"));
}

TEST(RequestLifeTest, WithoutATimeToWaitItTakesWhatServes) {
  LifeLimits limits = trireme::limits();
  limits.resume_timeout = milliseconds(0);
  Fixture f(limits);
  f.lose();
  EXPECT_THAT(f.actions.take(), ElementsAre("find", "finish replica_lost"));
  Fixture g(limits);
  g.actions.replicas = {true};
  g.lose();
  EXPECT_THAT(g.actions.take(), ElementsAre("find", "start"));
}

TEST(RequestLifeTest, ReplicaThatCameDuringTheSearchIsSeen) {
  Fixture f;
  f.actions.replicas = {false, true};
  f.actions.during_search = [&] { f.life.replica_available(); };
  f.lose();
  EXPECT_THAT(f.actions.take(), ElementsAre("find", "find", "start"));
}

TEST(RequestLifeTest, RefusedRequestIsOfferedToOneOther) {
  Fixture f;
  f.actions.replicas = {true, true};
  f.refuse();
  EXPECT_THAT(f.actions.take(), ElementsAre("find", "start"));
  f.refuse();
  EXPECT_THAT(f.actions.take(), ElementsAre("finish upstream"));
}

TEST(RequestLifeTest, RefusedRequestWaitsForNobody) {
  Fixture f;
  f.refuse();
  EXPECT_THAT(f.actions.take(), ElementsAre("find", "finish upstream"));
}

TEST(RequestLifeTest, SuccessorsThatRefuseAreAskedAgain) {
  Fixture f;
  f.actions.replicas = {true, false};
  f.lose();
  f.refuse(milliseconds(10));
  EXPECT_THAT(f.actions.take(), ElementsAre("find", "start", "find"));
  f.life.tick(kStart + milliseconds(109));
  EXPECT_THAT(f.actions.take(), IsEmpty());
  f.actions.replicas = {true, false};
  f.life.tick(kStart + milliseconds(110));
  EXPECT_THAT(f.actions.take(), ElementsAre("forgive", "find", "start"));
  f.refuse(milliseconds(120));
  f.life.tick(kStart + milliseconds(1000));  // the time counts from the death
  EXPECT_THAT(f.actions.take(), ElementsAre("find", "finish replica_lost"));
}

TEST(RequestLifeTest, EndReachesTheAttemptThatRuns) {
  Fixture f;
  f.life.end(RelayEnd::aborted);
  f.life.end(RelayEnd::client_gone);
  EXPECT_THAT(f.actions.take(), ElementsAre("end aborted"));
  f.life.attempt_ended(AttemptEnd::done, RelayEnd::aborted, kStart);
  EXPECT_THAT(f.actions.take(), ElementsAre("finish aborted"));
}

TEST(RequestLifeTest, NothingIsStartedForACallerThatIsGone) {
  Fixture f;
  f.actions.replicas = {true};
  f.life.end(RelayEnd::client_gone);
  f.lose();  // the replica died before the end reached it
  EXPECT_THAT(f.actions.take(), ElementsAre("end client_gone", "finish client_gone"));

  Fixture g;
  g.actions.replicas = {true};
  g.actions.during_search = [&] { g.life.end(RelayEnd::client_gone); };
  g.lose();
  EXPECT_THAT(g.actions.take(), ElementsAre("find", "finish client_gone"));

  Fixture h;
  h.lose();
  h.life.end(RelayEnd::client_gone);
  EXPECT_THAT(h.actions.take(), ElementsAre("find", "finish client_gone"));
}

TEST(RequestLifeTest, CancelEndsWhatHasNoReplica) {
  Fixture waiting;
  waiting.lose();
  EXPECT_FALSE(waiting.life.cancel());
  EXPECT_THAT(waiting.actions.take(), ElementsAre("find", "finish cancelled"));

  Fixture running;
  EXPECT_TRUE(running.life.cancel());
  EXPECT_THAT(running.actions.take(), IsEmpty());
  running.actions.replicas = {true};
  running.lose();  // before it could do what it was told
  EXPECT_THAT(running.actions.take(), ElementsAre("finish cancelled"));

  Fixture seeking;
  seeking.actions.replicas = {true};
  seeking.actions.during_search = [&] { EXPECT_FALSE(seeking.life.cancel()); };
  seeking.lose();
  EXPECT_THAT(seeking.actions.take(), ElementsAre("find", "finish cancelled"));
}

TEST(RequestLifeTest, NobodyWaitsForWhatWillNotCome) {
  Fixture waiting;
  waiting.lose();
  waiting.life.stop_waiting();
  EXPECT_THAT(waiting.actions.take(), ElementsAre("find", "finish replica_lost"));

  Fixture running;
  running.life.stop_waiting();
  EXPECT_THAT(running.actions.take(), IsEmpty());
  running.lose();
  EXPECT_THAT(running.actions.take(), ElementsAre("find", "finish replica_lost"));
}

}  // namespace
}  // namespace trireme
