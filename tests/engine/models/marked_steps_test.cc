// Decode steps with marks on the CUDA backend, compiled for the processor: alone, and with real ranks whose
// collectives are part of the recorded steps.

#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "engine/runner/telemetry_exchange.h"
#include "engine/runner/trace_file.h"
#include "tests/engine/models/reference_model.h"
#include "tests/testing/mpi_main.h"
#include "tests/testing/trace_check.h"

namespace trireme::testing {
namespace {

constexpr std::chrono::milliseconds kDeadline{60'000};
constexpr std::chrono::milliseconds kSlowness{100};
constexpr int kPeriod = StepMarks::kPeriods[static_cast<size_t>(StepKind::replayed)];

// Called here so that it comes from the stand-in's library, whatever the engine brings along.
const bool kHasStandIn = (simt::set_strict(true), create_cuda_backend({}).ok());

/// Collectives that the device does in the order of its stream, as NCCL's are.
class StreamGroup final : public ProcessGroup {
 public:
  explicit StreamGroup(Backend& backend)
      : group_(create_mpi_process_group(world())), stream_(static_cast<cudaStream_t>(backend.stream())) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  std::string name() const override { return "of a stream"; }
  bool can_be_captured() const override { return true; }
  void all_reduce_sum(const Tensor& tensor) override {
    simt::enqueue_work(stream_, [this, tensor] { group_->all_reduce_sum(tensor); });
  }
  void gather_cols(const Tensor& part, const Tensor& whole) override {
    simt::enqueue_work(stream_, [this, part, whole] { group_->gather_cols(part, whole); });
  }
  void broadcast(const Tensor& tensor) override {
    simt::enqueue_work(stream_, [this, tensor] { group_->broadcast(tensor); });
  }

 private:
  std::unique_ptr<ProcessGroup> group_;
  cudaStream_t stream_;
};

EngineConfig config_of(const Reference& reference) {
  CHECK_EQ(kHasStandIn, true);
  EngineConfig config = reference_engine_config(reference);
  config.backend = "cuda";
  config.collectives = "mpi";
  config.max_num_seqs = 1;
  config.max_step_tokens = 8;
  config.kv_memory_bytes = 1 << 20;
  config.num_threads = 2;
  config.dummy_weights = true;  // of a model that is small enough for many steps
  config.model.num_layers = 1;
  config.model.vocab_size = 96;
  return config;
}

class MarkedStepsTest : public ::testing::Test {
 protected:
  MarkedStepsTest() : model_(config_of(reference_)) {
    LoadedRank& rank = model_.rank();
    if (world().size() > 1) rank.group = std::make_unique<StreamGroup>(*rank.backend);
    phases_.keep_collectives(4096);
    phases_.keep_trace(4096);
    phases_.keep_device_trace(1024);
    runner_ = value_or_die(ModelRunner::create(rank.runner, *rank.backend, *rank.group, *rank.model,
                                               *rank.cache, phases_, progress_));
    EXPECT_EQ(value_or_die(runner_->capture_decodes()).num_graphs, 1);
    plan_.slots = {0};
    plan_.token_ids = {5};
    plan_.query_lens = {1};
    plan_.context_lens = {1};
    plan_.num_blocks = {1};
    plan_.block_tables = {2};
    plan_.sample = {1};
    plan_.sampling.push_back({0.9f, 0, 1, 0, 3, 0, 0});
    num_captured_collectives_ = progress_.collectives;
  }
  /// The same decode again.
  void step() {
    ++plan_.step;
    const PhaseScope whole(phases_, Phase::compute);
    ids_.push_back(runner_->run(plan_).sampled_ids[0]);
    if (world().rank() == 0) logits_.push_back(runner_->last_logits());
  }
  std::vector<RankTelemetry> report() {
    RankTelemetry own;
    own.times = phases_.snapshot();
    own.num_collectives = progress_.collectives - num_captured_collectives_;
    own.device_clock_error_ns = runner_->device_clock_error_ns();
    return value_or_die(exchange_.report(own));
  }
  uint64_t collectives_per_step() {
    const auto layers = static_cast<uint64_t>(model_.rank().runner.shape.num_layers);
    return world().size() > 1 ? 2 * layers + 3 : 0;
  }

  const Reference reference_ = load_reference("llama3_rope");
  HandLoaded model_;
  StepPhases phases_;
  StepProgress progress_;
  TelemetryExchange exchange_{world(), phases_, kDeadline};
  std::unique_ptr<ModelRunner> runner_;
  StepPlan plan_;
  uint64_t num_captured_collectives_ = 0;
  std::vector<int32_t> ids_;
  std::vector<std::vector<float>> logits_;
};

TEST_F(MarkedStepsTest, OneStepIn64HasMarksAndTheSameResults) {
  for (int i = 0; i <= kPeriod; ++i) {
    step();
    EXPECT_EQ(runner_->num_marked_steps(), i < kPeriod ? 1u : 2u) << "step " << i;
  }
  for (const int32_t id : ids_) EXPECT_EQ(id, ids_[0]);
  for (const std::vector<float>& logits : logits_) EXPECT_EQ(logits, logits_[0]) << "not the same bits";
  const auto records = phases_.collectives().after(0);
  ASSERT_EQ(records.size(), 2 * collectives_per_step());
  for (size_t i = 0; i < records.size(); ++i) {
    const bool is_second = i >= collectives_per_step();
    EXPECT_EQ(records[i].step, is_second ? kPeriod + 1u : 1u);
    EXPECT_EQ(records[i].collective,
              num_captured_collectives_ + i + 1 + (is_second ? (kPeriod - 1u) * collectives_per_step() : 0));
  }
}

TEST_F(MarkedStepsTest, TheMomentsOfAStepLieWithinIt) {
  const int64_t before = StepPhases::steady_ns();
  step();
  const int64_t after = StepPhases::steady_ns(), error = runner_->device_clock_error_ns();
  EXPECT_GT(error, 0);
  const auto records = phases_.collectives().after(0);
  ASSERT_EQ(records.size(), collectives_per_step());
  int64_t last = before - error;
  for (const TimelineRecord& record : records) {
    EXPECT_LE(last, record.begin_ns);
    EXPECT_LE(record.begin_ns, record.end_ns);
    last = record.end_ns;
  }
  EXPECT_LE(last, after + error);
  if (records.empty()) return;
  const CollectiveKind last_kinds[] = {CollectiveKind::gather, CollectiveKind::broadcast};
  EXPECT_EQ(records.front().kind, CollectiveKind::all_reduce);
  EXPECT_EQ(records.front().layer, -1) << "of the embedding";
  EXPECT_EQ(records[1].layer, 0);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(records[records.size() - 2 + i].kind, last_kinds[i]);
}

TEST_F(MarkedStepsTest, PhasesOfAllStepsAddUpAndAreThoseOfTheMarkedOnes) {
  const PhaseTimes before = phases_.snapshot();
  for (int i = 0; i < 10; ++i) step();
  const PhaseTimes times = phases_.snapshot() - before;
  EXPECT_GT(times.of(Phase::compute), 0);
  EXPECT_GT(times.of(Phase::sample), 0);
  EXPECT_EQ(times.of(Phase::collective) > 0, world().size() > 1);
  EXPECT_GE(times.unaccounted_ns(), 0);
  EXPECT_LE(times.of(Phase::compute) + times.of(Phase::sample) + times.of(Phase::collective), times.wall_ns);
  int64_t remembered = 0;
  for (const TimelineRecord& record : phases_.collectives().after(0))
    remembered += record.end_ns - record.begin_ns;
  EXPECT_EQ(remembered > 0, world().size() > 1) << "of one of the ten";
}

TEST_F(MarkedStepsTest, ATraceShowsWhatTheDevicesDid) {
  for (int i = 0; i < 3; ++i) step();
  const auto ranks = value_or_die(exchange_.trace());
  if (world().rank() != 0) return;
  const TraceSummary summary = check_trace(chrome_trace({0, "r0"}, ranks));
  EXPECT_THAT(summary.error, ::testing::IsEmpty());
  for (int rank = 0; rank < world().size(); ++rank) {
    auto events = summary.events.at({0, world().size() + rank});
    EXPECT_EQ(events["step"], 1) << "of three";
    EXPECT_GT(events["phase compute"], 0);
    EXPECT_EQ(events["collective"], static_cast<int>(collectives_per_step()));
    EXPECT_EQ(events["wait waiting"], events["collective"]);
  }
}

TEST_F(MarkedStepsTest, ARankThatComesLateIsTheOthersWaiting) {
  const int slow = world().size() - 1;
  const bool is_slow = world().size() > 1 && world().rank() == slow;
  const auto before = report();
  or_die(world().barrier(kDeadline));
  if (is_slow) std::this_thread::sleep_for(kSlowness);
  step();
  const auto marked = report();
  for (int i = 0; i < 3; ++i) step();
  const auto after = report();
  const int64_t slept = std::chrono::nanoseconds(kSlowness).count();
  for (size_t rank = 0; rank < after.size(); ++rank) {
    const RankTelemetry& now = marked[rank];
    EXPECT_EQ(now.num_collectives, collectives_per_step());
    EXPECT_EQ(now.num_compared_collectives, collectives_per_step());
    EXPECT_GE(now.collective_transfer_ns(), 0);
    EXPECT_GT(now.clock_error_ns, 0);
    EXPECT_EQ(after[rank].num_collectives, 4 * collectives_per_step());
    EXPECT_EQ(after[rank].num_compared_collectives, collectives_per_step()) << "no other has marks";
    if (world().size() == 1) continue;
    EXPECT_GT(after[rank].times.of(Phase::collective), now.times.of(Phase::collective));
    // Whatever else this machine does: what the slow rank slept, the others waited.
    const int64_t waited = now.collective_wait_ns - before[rank].collective_wait_ns;
    EXPECT_GT(waited, static_cast<int>(rank) == slow ? -1 : slept / 2);
  }
}

}  // namespace
}  // namespace trireme::testing
