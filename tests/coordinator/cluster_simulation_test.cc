// The coordinator's policies over real schedulers, on one thread and with a virtual clock: replicas die and
// come back, clients cancel and leave, output is lost on its way. Each seed is one history, the same every
// time.

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "coordinator/request_life.h"
#include "coordinator/router.h"
#include "coordinator/transcript.h"
#include "tests/engine/scheduler/simulation.h"

namespace trireme {
namespace {

using std::chrono::milliseconds;

const FakeModelConfig kModel{50, 0};

SchedulerConfig scheduler_config() {
  SchedulerConfig config;
  config.max_num_seqs = 4;
  config.max_step_tokens = 16;
  config.max_context_len = 64;
  config.block_size = 4;
  config.num_blocks = 40;
  config.vocab_size = kModel.vocab_size;
  return config;
}

struct SimulatedReplica {
  uint64_t id = 0;
  Simulation simulation{scheduler_config(), kModel};
  int64_t outstanding = 0;
  uint64_t last_chosen = 0;
};

class SimulatedCluster {
 public:
  explicit SimulatedCluster(uint32_t seed) : random(seed) {
    for (int i = 0; i < 3; ++i) add_replica();
  }
  void add_replica() {
    replicas.push_back(std::make_unique<SimulatedReplica>());
    replicas.back()->id = ++last_id_;
  }
  SimulatedReplica* find(uint64_t id) {
    for (const auto& replica : replicas)
      if (replica->id == id) return replica.get();
    return nullptr;
  }
  RequestLife::Time time() const { return RequestLife::Time() + milliseconds(now); }
  bool one_in(uint32_t n) { return random() % n == 0; }
  /// What gRPC's threads would bring: in order, and never from inside another event.
  void run_events() {
    while (!events.empty()) {
      const auto event = std::move(events.front());
      events.pop_front();
      event();
    }
  }

  std::mt19937 random;
  std::vector<std::unique_ptr<SimulatedReplica>> replicas;
  Router router;
  std::deque<std::function<void()>> events;
  int64_t now = 0;
  uint64_t num_choices = 0;

 private:
  uint64_t last_id_ = 0;
};

/// GenerateCall without gRPC.
class SimulatedRequest : private LifeActions {
 public:
  SimulatedRequest(SimulatedCluster& cluster, Request request, const LifeLimits& limits)
      : cluster_(cluster),
        request_(std::move(request)),
        chunks_(request_.prompt.begin(), request_.prompt.end()),
        wanted_(run_alone(kModel, request_)),
        life_(static_cast<LifeActions&>(*this), limits) {}

  void start() {
    if (find_replica()) return life_.start();
    ++num_ends_;  // nobody serves
    refused_at_the_end_ = true;
  }
  void replica_died(uint64_t id) {
    if (replica_ != id) return;
    lost_.push_back(std::exchange(replica_, 0));
    life_.attempt_ended(AttemptEnd::lost, RelayEnd::replica_lost, cluster_.time());
  }
  void replica_available() { life_.replica_available(); }
  void client_gone() { life_.end(RelayEnd::client_gone); }
  void cancel() {
    cancelled_ = true;
    if (life_.cancel() && replica_ != 0) ok(simulation().cancel(handle_));
  }
  void tick() { life_.tick(cluster_.time()); }

  /// Passes on some of what its replica has produced: the rest is under way, and lost when the replica dies.
  void deliver() {
    if (replica_ == 0) return;
    const Simulation::Record& record = simulation().record(handle_);
    size_t passed_on = transcript_.samples()[0].token_ids.size();
    for (; passed_on < record.tokens.size() && !cluster_.one_in(3); ++passed_on) {
      const bool last = passed_on + 1 == record.tokens.size() && record.finish != FinishReason::none;
      ASSERT_TRUE(transcript_.append(0, &record.tokens[passed_on], 1, last));
    }
    if (passed_on < record.tokens.size() || record.finish == FinishReason::none) return;
    finish_ = record.finish;
    leave();
    life_.attempt_ended(AttemptEnd::done, RelayEnd::upstream, cluster_.time());
  }

  void check() const {
    EXPECT_EQ(num_ends_, 1);
    std::vector<int32_t> tokens = wanted_.tokens;
    const std::vector<int32_t>& got = transcript_.samples()[0].token_ids;
    if (finish_ == FinishReason::none || finish_ == FinishReason::cancelled)
      tokens.resize(std::min(tokens.size(), got.size()));
    else
      EXPECT_EQ(finish_, wanted_.finish);
    EXPECT_EQ(got, tokens);
    if (cancelled_) return;
    EXPECT_NE(finish_, FinishReason::cancelled);
    EXPECT_EQ(whole(), cause_ == RelayEnd::upstream && !refused_at_the_end_);
  }
  bool over() const { return num_ends_ > 0; }
  bool whole() const { return finish_ != FinishReason::none; }
  int num_deaths() const { return static_cast<int>(lost_.size()); }
  RelayEnd cause() const { return cause_; }

 private:
  static void ok(const absl::Status& status) { EXPECT_TRUE(status.ok()) << status; }
  Simulation& simulation() { return cluster_.find(replica_)->simulation; }
  void leave() {
    if (SimulatedReplica* replica = cluster_.find(std::exchange(replica_, 0))) --replica->outstanding;
  }

  bool find_replica() override {
    std::vector<ReplicaView> views;
    for (const auto& replica : cluster_.replicas) {
      const auto is_it = [&](uint64_t id) { return id == replica->id; };
      if (std::any_of(lost_.begin(), lost_.end(), is_it)) continue;
      if (std::any_of(refused_.begin(), refused_.end(), is_it)) continue;
      views.push_back({replica->id, replica->outstanding, 0, replica->last_chosen});
    }
    const std::optional<size_t> chosen = cluster_.router.choose(views, chunks_);
    if (!chosen) return false;
    replica_ = views[*chosen].replica;
    SimulatedReplica& replica = *cluster_.find(replica_);
    ++replica.outstanding;
    replica.last_chosen = ++cluster_.num_choices;
    return true;
  }
  void start_attempt() override {
    Request request = request_;
    request.resumed_outputs = transcript_.samples()[0].token_ids;
    // Six at most, as if the queue were full.
    const bool full = cluster_.find(replica_)->outstanding > 6;
    if (!full && simulation().add(request).ok()) {
      handle_ = simulation().last_handle();
      return;
    }
    refused_.push_back(replica_);
    leave();
    cluster_.events.push_back([this] {
      refused_at_the_end_ = true;
      life_.attempt_ended(AttemptEnd::refused, RelayEnd::upstream, cluster_.time());
      if (!over()) refused_at_the_end_ = false;
    });
  }
  void end_attempt(RelayEnd cause) override {
    if (replica_ == 0) return;
    ok(simulation().cancel(handle_));
    leave();
    cluster_.events.push_back(
        [this, cause] { life_.attempt_ended(AttemptEnd::done, cause, cluster_.time()); });
  }
  void forgive_refusals() override { refused_.clear(); }
  void finish(RelayEnd cause) override {
    ++num_ends_;
    cause_ = cause;
    leave();
  }

  SimulatedCluster& cluster_;
  const Request request_;
  const PromptChunks chunks_;
  const ReferenceRun wanted_;
  RequestLife life_;
  Transcript transcript_{1};
  uint64_t replica_ = 0;  // 0: none
  RequestHandle handle_ = 0;
  std::vector<uint64_t> lost_, refused_;
  FinishReason finish_ = FinishReason::none;
  RelayEnd cause_ = RelayEnd::upstream;
  bool cancelled_ = false, refused_at_the_end_ = false;
  int num_ends_ = 0;
};

struct Outcomes {
  int whole = 0, resumed = 0, lost = 0, left = 0;
};

Request any_request(std::mt19937& random) {
  Request request;
  const int stream = static_cast<int>(random() % 4);
  const int num_tokens = 1 + static_cast<int>(random() % 30);
  for (int i = 0; i < num_tokens; ++i) request.prompt.push_back((stream * 7 + i * i) % kModel.vocab_size);
  request.sampling.seed = random();
  request.stopping.max_tokens = 1 + static_cast<int32_t>(random() % 30);
  if (random() % 3 == 0) request.stopping.stop_token_ids = {0, 1};
  return request;
}

void run(uint32_t seed, Outcomes& outcomes) {
  SimulatedCluster cluster(seed);
  LifeLimits limits;
  limits.resume_timeout = milliseconds(40);
  limits.refusal_pause = milliseconds(5);
  std::vector<std::unique_ptr<SimulatedRequest>> requests;
  const auto each = [&](auto&& what) {
    for (const auto& request : requests)
      if (!request->over()) what(*request);
    cluster.run_events();
  };
  constexpr int64_t kArrivals = 300, kEnd = 3000;
  for (; cluster.now < kEnd; ++cluster.now) {
    if (cluster.now < kArrivals && cluster.one_in(4)) {
      requests.push_back(std::make_unique<SimulatedRequest>(cluster, any_request(cluster.random), limits));
      requests.back()->start();
      cluster.run_events();
    }
    if (cluster.now < kArrivals && cluster.one_in(40) && !cluster.replicas.empty()) {
      const size_t victim = cluster.random() % cluster.replicas.size();
      const uint64_t id = cluster.replicas[victim]->id;
      cluster.replicas.erase(cluster.replicas.begin() + static_cast<std::ptrdiff_t>(victim));
      cluster.router.forget(id);
      each([&](SimulatedRequest& request) { request.replica_died(id); });
    }
    if (cluster.replicas.size() < 3 && cluster.one_in(30)) {
      cluster.add_replica();
      each([](SimulatedRequest& request) { request.replica_available(); });
    }
    each([&](SimulatedRequest& request) {
      if (cluster.one_in(600)) return request.cancel();
      if (cluster.one_in(600)) return request.client_gone();
      request.deliver();
    });
    each([](SimulatedRequest& request) { request.tick(); });
    for (const auto& replica : cluster.replicas) {
      const absl::Status status = replica->simulation.step();
      ASSERT_TRUE(status.ok()) << status;
    }
  }
  for (const auto& request : requests) {
    request->check();
    outcomes.whole += request->whole() ? 1 : 0;
    outcomes.resumed += request->whole() && request->num_deaths() > 0 ? 1 : 0;
    outcomes.lost += request->cause() == RelayEnd::replica_lost ? 1 : 0;
    outcomes.left += request->cause() == RelayEnd::client_gone ? 1 : 0;
    EXPECT_LE(request->num_deaths(), limits.max_resumes + 1);
  }
  for (const auto& replica : cluster.replicas) {
    EXPECT_EQ(replica->outstanding, 0);
    const absl::Status status = replica->simulation.drain();  // all blocks are free, too
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(ClusterSimulationTest, EveryRequestEndsOnceWithTheTokensOfAnUndisturbedRun) {
  Outcomes outcomes;
  for (uint32_t seed = 0; seed < 200 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    run(seed, outcomes);
  }
  // That it happened at all.
  EXPECT_GT(outcomes.whole, 5000);
  EXPECT_GT(outcomes.resumed, 200);
  EXPECT_GT(outcomes.lost, 20);
  EXPECT_GT(outcomes.left, 20);
  RecordProperty("resumed", outcomes.resumed);
}

}  // namespace
}  // namespace trireme
