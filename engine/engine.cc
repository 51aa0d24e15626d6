#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/loading.h"
#include "engine/parallel/agreement.h"
#include "engine/parallel/process_guard.h"
#include "engine/runner/telemetry_exchange.h"

namespace trireme {
namespace {

// Beyond them a report compares only the last ones: 256 KiB per rank and report.
constexpr size_t kCollectivesPerReport = 8192;

/// Room for so many steps: two collectives per layer and three more, as many pieces of computing
/// between them, and what else a step and the service around it consist of.
size_t trace_records(const EngineConfig& config, int num_steps) {
  const size_t per_step = 2 * (2 * static_cast<size_t>(config.model.num_layers) + 3) + 16;
  return per_step * static_cast<size_t>(num_steps);
}

/// Of a trace, how many steps of a device are marked.
int marked_steps(int num_steps) {
  return num_steps / *std::min_element(StepMarks::kPeriods.begin(), StepMarks::kPeriods.end()) + 1;
}

}  // namespace

struct Engine::Impl {
  Impl(const EngineConfig& engine_config, HostGroup& host_group, LoadedRank loaded)
      : config(engine_config),
        host(host_group),
        rank(std::move(loaded)),
        exchange(host_group, phases, engine_config.plan_timeout),
        plans(*engine_config.steps_ahead + 1) {
    if (host.size() > 1) phases.keep_collectives(kCollectivesPerReport);
    if (config.trace_steps == 0) return;
    phases.keep_trace(trace_records(config, config.trace_steps));
    if (rank.backend->can_capture())
      phases.keep_device_trace(trace_records(config, marked_steps(config.trace_steps)));
  }

  /// Sends the words of a plan from the leader to the followers.
  absl::Status broadcast(const StepPlan& plan_to_send) {
    if (host.size() == 1) return absl::OkStatus();
    PhaseScope phase(phases, Phase::broadcast);
    pack(plan_to_send, words);
    return host.broadcast(words, 0, config.plan_timeout);
  }

  /// On a follower. The plan itself tells what the wait for it was: nobody's work, or the leader's.
  absl::Status receive(StepPlan& plan, std::chrono::milliseconds deadline) {
    const int64_t begin = phases.now();
    if (absl::Status received = host.broadcast(words, 0, deadline); !received.ok()) return received;
    const int64_t end = phases.now();
    const PhaseScope phase(phases, Phase::broadcast);
    absl::Status valid = unpack(words.data(), words.size(), rank.runner.limits, plan);
    if (!valid.ok()) return valid;
    phases.set_step(plan.step);
    const Phase waited = plan.after_idle ? Phase::idle : Phase::broadcast;
    phases.add({begin, end, plan.step, 0, -1, waited, CollectiveKind::none});
    return absl::OkStatus();
  }

  absl::Status send_command(StepPlan::Kind kind) {
    StepPlan command;
    command.kind = kind;
    command.after_idle = kind == StepPlan::Kind::kIdle || was_idle;
    command.step = progress.step.load();
    return broadcast(command);
  }

  absl::StatusOr<std::vector<RankTelemetry>> report() {
    const PhaseScope phase(phases, Phase::host);
    RankTelemetry own;
    own.times = phases.snapshot();
    own.num_compiled_kernels = rank.backend->num_compiled_kernels();
    own.num_collectives = progress.collectives.load();
    own.device_clock_error_ns = runner->device_clock_error_ns();
    return exchange.report(own);
  }

  absl::StatusOr<std::vector<RankTimeline>> trace() {
    const PhaseScope phase(phases, Phase::host);
    return exchange.trace();
  }

  void launch(const StepPlan& plan_to_run) {
    progress.step.store(plan_to_run.step);
    progress.move();
    progress.running.store(true);
    runner->launch(plan_to_run);
    ++num_launched;
  }

  /// Of the oldest step.
  const StepResults& collect() {
    const PhaseScope waiting(phases, Phase::compute);
    const StepResults& results = runner->collect();
    oldest = (oldest + 1) % plans.size();
    progress.running.store(--num_launched > 0);
    progress.move();
    return results;
  }

  bool schedule(StepPlan& next) {
    phases.set_step(progress.step.load() + 1);
    const PhaseScope phase(phases, Phase::schedule);
    if (!scheduler->schedule(next)) return false;
    next.step = phases.step();
    next.after_idle = std::exchange(was_idle, false);
    return true;
  }

  /// Launches what can be scheduled, as far ahead as is allowed.
  absl::Status launch_ahead() {
    while (num_launched < plans.size()) {
      StepPlan& next = plans[(oldest + num_launched) % plans.size()];
      if (!schedule(next)) break;
      if (absl::Status sent = broadcast(next); !sent.ok()) return sent;
      launch(next);
    }
    return absl::OkStatus();
  }

  EngineConfig config;
  HostGroup& host;
  LoadedRank rank;
  StepPhases phases;
  TelemetryExchange exchange;
  StepProgress progress;
  std::unique_ptr<ModelRunner> runner;
  std::unique_ptr<Scheduler> scheduler;  // on the leader
  std::vector<StepPlan> plans;           // a ring of steps_ahead + 1: those launched begin at `oldest`
  size_t oldest = 0;
  size_t num_launched = 0;
  bool was_idle = true;  // the leader has had nothing to run since the last step
  std::vector<int32_t> words;
};

namespace {

SchedulerConfig scheduler_config(const EngineConfig& config, const StepPlanLimits& limits) {
  SchedulerConfig scheduler;
  scheduler.max_num_seqs = limits.max_num_seqs;
  scheduler.max_step_tokens = limits.max_num_tokens;
  scheduler.max_context_len = limits.max_context_len;
  scheduler.num_blocks = limits.num_blocks;
  scheduler.block_size = limits.block_size;
  scheduler.vocab_size = limits.vocab_size;
  scheduler.enable_prefix_cache = config.enable_prefix_cache;
  return scheduler;
}

absl::Status validate(const EngineConfig& config) {
  const auto wrong = [](const char* what, int64_t got, const char* wanted) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": got ", got, ", wanted ", wanted));
  };
  if (config.max_num_seqs < 1 || config.max_num_seqs > 4096)
    return wrong("max_num_seqs", config.max_num_seqs, "1 to 4096");
  if (config.max_step_tokens < config.max_num_seqs || config.max_step_tokens > 65536) {
    return wrong("max_step_tokens", config.max_step_tokens, "max_num_seqs to 65536");
  }
  if (config.block_size < 1 || config.block_size > 256)
    return wrong("block_size", config.block_size, "1 to 256");
  if (const int ahead = config.steps_ahead.value_or(0); ahead < 0 || ahead > 7)
    return wrong("steps_ahead", ahead, "0 to 7");
  if (config.kv_memory_bytes < 0) return wrong("kv_memory_bytes", config.kv_memory_bytes, "0 or more");
  if (config.trace_steps < 0 || config.trace_steps > 100'000)
    return wrong("trace_steps", config.trace_steps, "0 to 100000");
  if (config.local_ranks < 1) return wrong("local_ranks", config.local_ranks, "1 or more");
  if (config.shard_size > 0 && (config.shard_rank < 0 || config.shard_rank >= config.shard_size)) {
    return wrong("shard_rank", config.shard_rank, "0 to shard_size - 1");
  }
  return absl::OkStatus();
}

void note_capture(const CaptureStats& captured, LoadedRank& rank) {
  rank.notes.push_back(absl::StrFormat(
      "%d of %d decode steps captured, each plain and with marks of its phases, in %.1f s, "
      "%.1f MiB of the device%s",
      captured.num_graphs, captured.num_shapes, captured.seconds,
      static_cast<double>(captured.bytes) / (1 << 20),
      captured.ended.empty()
          ? ""
          : absl::StrCat("; larger ones start one operation after the other, since ", captured.ended)));
  for (LedgerLine& line : rank.ledger.lines)
    if (line.kind == kGraphsLine) line.measured = captured.bytes;
}

/// Memory ran out where the ledger had told what goes where.
absl::Status with_ledger(const absl::Status& status, const ByteLedger& ledger) {
  if (status.code() != absl::StatusCode::kResourceExhausted) return status;
  std::vector<std::string> needs;
  for (const LedgerLine& line : ledger.lines)
    needs.push_back(
        absl::StrFormat("%s %.1f MiB", line.kind, static_cast<double>(line.predicted) / (1 << 20)));
  return absl::ResourceExhaustedError(
      absl::StrCat(status.message(), "; rank ", ledger.rank, " needs: ", absl::StrJoin(needs, ", "),
                   "; lower --kv-memory, --max-num-seqs or --max-step-tokens"));
}

}  // namespace

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

absl::StatusOr<std::unique_ptr<Engine>> Engine::create(const EngineConfig& config, HostGroup& group) {
  if (absl::Status valid = agree_on_success(group, validate(config), config.load_timeout); !valid.ok())
    return valid;
  auto rank = load_rank(config, group);
  if (!rank.ok()) return rank.status();
  EngineConfig chosen = config;
  if (!chosen.steps_ahead) chosen.steps_ahead = rank->backend->can_capture() ? 1 : 0;
  auto impl = std::make_unique<Impl>(chosen, group, *std::move(rank));
  impl->rank.runner.steps_ahead = *chosen.steps_ahead;
  auto runner = ModelRunner::create(impl->rank.runner, *impl->rank.backend, *impl->rank.group,
                                    *impl->rank.model, *impl->rank.cache, impl->phases, impl->progress);
  const absl::Status all =
      agree_on_success(group, with_ledger(runner.status(), impl->rank.ledger), config.load_timeout);
  if (!all.ok()) return all;
  impl->runner = *std::move(runner);
  if (std::string note = impl->rank.backend->products_note(); !note.empty())
    impl->rank.notes.push_back(std::move(note));
  std::optional<ProcessGuard> guard;  // collectives on a device have no deadline of their own
  if (group.size() > 1) {
    guard.emplace(config.load_timeout,
                  absl::StrCat("rank ", group.rank(), " of ", group.size(),
                               ": the first steps did not end within ", config.load_timeout.count(),
                               " ms: a rank or a device hangs, so this process ends (exit 70)"));
  }
  impl->runner->warm_up();
  if (config.capture_decodes) {
    auto captured = impl->runner->capture_decodes({config.capture_time, config.capture_bytes});
    const absl::Status everywhere = agree_on_success(group, captured.status(), config.load_timeout);
    if (!everywhere.ok()) return everywhere;
    if (captured->num_shapes > 0) note_capture(*captured, impl->rank);
  }
  if (group.rank() == 0) {
    impl->scheduler = std::make_unique<Scheduler>(scheduler_config(config, impl->rank.runner.limits));
  }
  impl->rank.ledger.resident_bytes = resident_bytes();
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

absl::Status Engine::submit(Request request) { return impl_->scheduler->add(std::move(request)); }

bool Engine::cancel(RequestHandle handle) { return impl_->scheduler->cancel(handle); }

bool Engine::has_work() const { return impl_->num_launched > 0 || impl_->scheduler->has_work(); }

absl::StatusOr<bool> Engine::step(std::vector<TokenOutput>& outputs) {
  Impl& impl = *impl_;
  const StepScope whole(impl.phases);
  {
    const PhaseScope phase(impl.phases, Phase::schedule);
    impl.scheduler->take_finished(outputs);
  }
  if (absl::Status launched = impl.launch_ahead(); !launched.ok()) return launched;
  if (impl.num_launched == 0) return false;
  const StepPlan& plan = impl.plans[impl.oldest];
  const StepResults& results = impl.collect();
  impl.phases.set_step(plan.step);
  const PhaseScope phase(impl.phases, Phase::finish);
  impl.scheduler->finish_step(plan, results.sampled_ids.data(), results.logprobs.data(), outputs,
                              &results.step_logprobs);
  impl.was_idle = !has_work();
  return true;
}

absl::Status Engine::broadcast_idle() { return impl_->send_command(StepPlan::Kind::kIdle); }

absl::Status Engine::broadcast_stop() {
  while (impl_->num_launched > 0) impl_->collect();  // of requests that have ended meanwhile
  return impl_->send_command(StepPlan::Kind::kStop);
}

absl::StatusOr<std::vector<RankTelemetry>> Engine::gather_telemetry() {
  if (absl::Status sent = impl_->send_command(StepPlan::Kind::kReport); !sent.ok()) return sent;
  return impl_->report();
}

absl::StatusOr<std::vector<RankTimeline>> Engine::gather_trace() {
  if (absl::Status sent = impl_->send_command(StepPlan::Kind::kTrace); !sent.ok()) return sent;
  return impl_->trace();
}

absl::StatusOr<bool> Engine::follow(std::chrono::milliseconds deadline) {
  Impl& impl = *impl_;
  // A place in the ring that no launched step uses.
  StepPlan& plan = impl.plans[(impl.oldest + impl.num_launched) % impl.plans.size()];
  if (absl::Status received = impl.receive(plan, deadline); !received.ok()) return received;
  if (plan.kind != StepPlan::Kind::kRun) {
    while (impl.num_launched > 0) impl.collect();  // no later plan would, and a step in flight is watched
  }
  switch (plan.kind) {
    case StepPlan::Kind::kStop:
      return false;
    case StepPlan::Kind::kIdle:
      return true;
    case StepPlan::Kind::kReport:
      if (auto told = impl.report(); !told.ok()) return told.status();
      return true;
    case StepPlan::Kind::kTrace:
      if (auto told = impl.trace(); !told.ok()) return told.status();
      return true;
    case StepPlan::Kind::kRun:
      break;
  }
  const StepScope whole(impl.phases);
  impl.launch(plan);
  if (impl.num_launched == impl.plans.size()) impl.collect();
  return true;
}

SchedulerStats Engine::stats() const { return impl_->scheduler->stats(); }
void Engine::list_waiting(std::vector<RequestHandle>& handles) const {
  impl_->scheduler->list_waiting(handles);
}
absl::Status Engine::check_integrity() const { return impl_->scheduler->check_integrity(); }
const ByteLedger& Engine::ledger() const { return impl_->rank.ledger; }
const StepProgress& Engine::progress() const { return impl_->progress; }
StepPhases& Engine::phases() { return impl_->phases; }
const std::vector<std::string>& Engine::notes() const { return impl_->rank.notes; }
int Engine::max_context_len() const { return impl_->rank.runner.limits.max_context_len; }
DType Engine::compute_dtype() const { return impl_->rank.compute_dtype; }
std::string Engine::backend_name() const { return impl_->rank.backend->name(); }

}  // namespace trireme
