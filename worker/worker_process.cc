#include "worker/worker_process.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "engine/backend_choice.h"
#include "engine/engine.h"
#include "engine/loading.h"
#include "engine/parallel/agreement.h"
#include "engine/runner/trace_file.h"
#include "engine/tokenizer/tokenizer.h"
#include "worker/active_requests.h"
#include "worker/engine_adapter.h"
#include "worker/follower.h"
#include "worker/inventory.h"
#include "worker/job.h"
#include "worker/join_job.h"
#include "worker/leader_process.h"
#include "worker/replica_server.h"
#include "worker/stop_signal.h"
#include "worker/trace_keeper.h"
#include "worker/watchdog.h"

namespace trireme::worker {

namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t kProtocolVersion = 1;
// Beyond what rank 0 waits for the coordinator: the other ranks must not give up first.
constexpr std::chrono::seconds kPlanSlack{30};

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Before hours of serving, not after them.
absl::Status check_writable(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "ab");
  if (file == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("--trace: cannot write ", path, ": ", std::strerror(errno)));
  }
  std::fclose(file);
  return absl::OkStatus();
}

class WorkerProcess {
 public:
  WorkerProcess(const WorkerOptions& options, HostGroup& world, Clock::time_point started)
      : options_(options), world_(world), started_(started) {}

  ExitCode run() {
    start_seconds_ = seconds_since(started_);
    absl::Status status = join();
    // All ranks have the same error: rank 0 tells.
    if (!status.ok()) return failed(status, world_.rank() == 0);
    join_seconds_ = seconds_since(started_) - start_seconds_;
    if (const int longest = longest_context(model_.config); options_.max_context_len > longest) {
      failed(absl::InvalidArgumentError(absl::StrCat("--max-context-len: got ", options_.max_context_len,
                                                     ", wanted at most the model's ", longest)),
             world_.rank() == 0);
      return ExitCode::kUsage;
    }
    replica_ = world_.split(assignment_.replica_index, assignment_.tp_rank);
    status = load();
    if (!status.ok()) return failed(status, replica_->rank() == 0);
    load_seconds_ = seconds_since(started_) - start_seconds_ - join_seconds_;
    return assignment_.tp_rank == 0 ? lead() : follow();
  }

 private:
  static ExitCode failed(const absl::Status& status, bool tell) {
    if (tell) {
      std::fprintf(stderr, "trireme-worker: %s\n", std::string(status.message()).c_str());
      std::fflush(stderr);
    }
    return exit_code(status);
  }

  /// For a rank whose peers may be gone: MPI cannot be ended in order, and waiting for it would never end.
  [[noreturn]] static void die(const std::string& message, ExitCode code = ExitCode::kInternal) {
    std::fprintf(stderr, "trireme-worker: %s\n", message.c_str());
    std::fflush(nullptr);
    ::_exit(static_cast<int>(code));
  }

  std::string who() const { return absl::StrCat("rank ", world_.rank(), " on host ", host_name()); }

  absl::Status load_tokenizer() {
    if (options_.load_format == "dummy" || tokenizer_ != nullptr) return absl::OkStatus();
    auto tokenizer = Tokenizer::load(options_.model_dir);
    if (!tokenizer.ok()) return tokenizer.status();
    if ((*tokenizer)->vocab_size() > model_.config.vocab_size) {
      return absl::FailedPreconditionError(
          absl::StrCat(options_.model_dir, "/tokenizer.json has ids up to ", (*tokenizer)->vocab_size() - 1,
                       ", but config.json says a vocab_size of ", model_.config.vocab_size,
                       ": they do not belong together"));
    }
    tokenizer_ = *std::move(tokenizer);
    return absl::OkStatus();
  }

  /// World rank 0 only.
  absl::Status fill_join_request(v1::JoinJobRequest& request) {
    if (auto status = load_tokenizer(); !status.ok()) return status;
    request.set_protocol_version(kProtocolVersion);
    request.set_build_version(TRIREME_VERSION);
    request.set_job_id(ActiveRequests::draw_id().substr(0, 8));
    *request.mutable_model() = describe_model(model_, device_, tokenizer_ ? tokenizer_->hash() : "");
    request.set_wanted_tensor_parallel_size(options_.tensor_parallel_size);
    return absl::OkStatus();
  }

  /// The GPU of this rank where --device names one for each rank, or each is shown its own. Collective.
  absl::StatusOr<std::optional<DevicePlacement>> named_placement() {
    if (options_.devices.size() == 1) {
      return agree_on_placement(world_, options_.backend, options_.collectives, options_.devices.front(),
                                options_.join_timeout);
    }
    const auto hosts = share_bytes(world_, host_name(), options_.join_timeout);
    if (!hosts.ok()) return hosts.status();
    const auto placement = place_as_named(options_.devices, *hosts, world_.rank());
    if (!placement.ok()) return placement.status();
    return *placement;
  }

  absl::Status join() {
    auto model = identify_model(options_);
    if (model.ok()) model_ = *model;
    named_ = named_placement();
    auto device = find_device(options_, world_, named_, model);
    if (device.ok()) device_ = *std::move(device);
    v1::RankReport report = make_rank_report(world_.rank(), options_, model, device);
    v1::JoinJobRequest request;
    if (world_.rank() == 0 && report.error_code() == 0) {
      if (auto status = fill_join_request(request); !status.ok()) {
        report.set_error_code(static_cast<int>(status.code()));
        report.set_error_message(std::string(status.message()));
      }
    }
    const auto ask = [this](const v1::JoinJobRequest& asked) -> absl::StatusOr<v1::JoinJobResponse> {
      return options_.coordinator.empty() ? plan_alone(asked)
                                          : join_job(options_.coordinator, asked, options_.join_timeout);
    };
    auto assignment = plan_job(world_, report, std::move(request), ask, options_.join_timeout + kPlanSlack);
    if (!assignment.ok()) return assignment.status();
    assignment_ = *std::move(assignment);
    return absl::OkStatus();
  }

  absl::Status load() {
    // What would be found out after the load otherwise, too late for a large model.
    absl::Status listen;
    if (assignment_.tp_rank == 0) {
      listen = check_listen(options_.listen, options_.insecure);
      if (options_.metrics_listen) listen.Update(check_listen(*options_.metrics_listen, options_.insecure));
      if (!options_.trace_file.empty()) listen.Update(check_writable(trace_path()));
    }
    if (auto all = agree_on_success(*replica_, listen, options_.load_timeout); !all.ok()) return all;
    EngineConfig config;
    config.model_dir = options_.model_dir;
    config.model = model_.config;
    config.backend = options_.backend;
    config.device = options_.devices.front();
    config.placement = *named_;
    config.collectives = options_.collectives;
    config.dummy_weights = options_.load_format == "dummy";
    config.compute_dtype = options_.compute_dtype;
    config.num_threads = assignment_.num_threads;
    config.max_num_seqs = options_.max_num_seqs;
    config.max_step_tokens = options_.max_step_tokens;
    config.max_context_len = options_.max_context_len;
    config.block_size = options_.block_size;
    config.kv_memory_bytes =
        options_.kv_memory_bytes > 0 ? options_.kv_memory_bytes : assignment_.kv_bytes_per_rank;
    config.local_ranks = options_.local_ranks > 0 ? options_.local_ranks : assignment_.local_ranks;
    config.enable_prefix_cache = options_.prefix_cache;
    config.load_timeout = options_.load_timeout;
    config.trace_steps = options_.trace_file.empty() ? 0 : options_.trace_steps;
    auto engine = Engine::create(config, *replica_);
    if (!engine.ok()) return engine.status();
    engine_ = *std::move(engine);
    spdlog::info("{}: replica {}, tensor-parallel rank {} of {}, {} threads, {}", who(),
                 assignment_.replica_id, assignment_.tp_rank, assignment_.tp_size, assignment_.num_threads,
                 engine_->backend_name());
    if (assignment_.tp_rank == 0) {
      for (const std::string& note : engine_->notes()) spdlog::info("{}", note);
    }
    spdlog::info("memory of {}\n{}", who(), engine_->ledger().to_text());
    return absl::OkStatus();
  }

  ExitCode follow() {
    StopSignal::ignore();  // the leader ends its followers, when it has drained
    EngineAdapter adapter(*engine_);
    Watchdog watchdog(engine_->progress(), options_.step_timeout, who());
    const absl::Status status = run_follower(adapter, options_.leader_timeout);
    if (!status.ok()) die(absl::StrCat(who(), ": ", status.message()));
    return ExitCode::kOk;
  }

  absl::StatusOr<ServedModel> served_model() {
    if (auto status = load_tokenizer(); !status.ok()) return status;
    ServedModel served;
    if (!options_.model_dir.empty()) {
      auto defaults = load_generation_defaults(options_.model_dir);
      if (!defaults.ok()) return defaults.status();
      served.defaults = *std::move(defaults);
    }
    std::set<int> eos(model_.config.eos_token_ids.begin(), model_.config.eos_token_ids.end());
    eos.insert(served.defaults.eos_token_ids.begin(), served.defaults.eos_token_ids.end());
    served.eos_token_ids.assign(eos.begin(), eos.end());
    served.name = model_.name;
    served.architecture = model_.config.architecture;
    served.compute_dtype = std::string(dtype_name(engine_->compute_dtype()));
    served.backend = engine_->backend_name();
    served.vocab_size = model_.config.vocab_size;
    served.max_context_len = engine_->max_context_len();
    served.tensor_parallel_size = assignment_.tp_size;
    served.tokenizer = tokenizer_.get();
    served.request_limits = options_.request_limits;
    return served;
  }

  v1::ReplicaRegistration registration(const ServedModel& served) const {
    v1::ReplicaRegistration registration;
    registration.set_replica_id(assignment_.replica_id);
    registration.set_incarnation(ActiveRequests::draw_id());
    registration.set_job_id(assignment_.job_id);
    *registration.mutable_model() = describe_model(model_, device_, tokenizer_ ? tokenizer_->hash() : "");
    registration.mutable_model()->set_compute_dtype(served.compute_dtype);
    registration.set_advertise(options_.advertise);
    registration.set_max_context_len(served.max_context_len);
    registration.set_tensor_parallel_size(assignment_.tp_size);
    registration.set_max_running_requests(options_.max_num_seqs);
    registration.set_backend(served.backend);
    for (const v1::RankInfo& rank : assignment_.ranks) *registration.add_ranks() = rank;
    return registration;
  }

  void tell_ready(const LeaderAddresses& addresses) const {
    std::printf(
        "trireme-worker ready, listening on %s: replica %s, model %s, tensor-parallel size %d, %s %s "
        "(start %.2f s, join %.2f s, load %.2f s, total %.2f s)\n",
        addresses.inference.text().c_str(), assignment_.replica_id.c_str(), model_.name.c_str(),
        assignment_.tp_size, engine_->backend_name().c_str(),
        std::string(dtype_name(engine_->compute_dtype())).c_str(), start_seconds_, join_seconds_,
        load_seconds_, seconds_since(started_));
    if (addresses.metrics)
      std::printf("trireme-worker metrics on http://%s/metrics\n", addresses.metrics->text().c_str());
    std::fflush(stdout);
  }

  std::string trace_path() const {
    const bool alone = assignment_.tp_size == world_.size();
    std::filesystem::path path = options_.trace_file;
    if (!alone) {
      const std::string number = absl::StrCat(".", assignment_.replica_index);
      path.replace_filename(path.stem().string() + number + path.extension().string());
    }
    return path.string();
  }

  void write_trace_file(const std::vector<RankTimeline>& ranks) const {
    const absl::Status written =
        write_trace(trace_path(), {assignment_.replica_index, assignment_.replica_id}, ranks);
    if (written.ok())
      spdlog::log(options_.trace_interval.count() > 0 ? spdlog::level::debug : spdlog::level::info,
                  "replica {}: the last {} steps are in {}", assignment_.replica_id, options_.trace_steps,
                  trace_path());
    else
      spdlog::error("{}", std::string(written.message()));
  }

  /// The followers wait for plans already, so whatever goes wrong here ends with a stop plan.
  ExitCode lead() {
    TraceKeeper traces([this](const std::vector<RankTimeline>& ranks) { write_trace_file(ranks); });
    EngineAdapter adapter(*engine_, options_.trace_file.empty() ? nullptr : &traces, options_.trace_interval);
    auto served = served_model();
    LeaderProcessOptions process;
    process.registration.set_replica_id(assignment_.replica_id);
    absl::Status status = served.status();
    if (status.ok() && !options_.coordinator.empty()) process.registration = registration(*served);
    if (!status.ok()) {
      if (auto sent = adapter.broadcast_stop(); !sent.ok()) die(std::string(sent.message()));
      return failed(status, true);
    }
    process.listen = options_.listen;
    process.insecure = options_.insecure;
    process.metrics_listen = options_.metrics_listen;
    process.coordinator = options_.coordinator;
    process.drain_timeout = options_.drain_timeout;
    process.lease.give_up_after = options_.coordinator_timeout;
    process.service.max_unread_bytes = options_.max_unread_bytes;
    process.service.write_timeout = options_.write_timeout;
    process.leader.queue = {options_.max_queued_requests, options_.max_queued_tokens,
                            options_.max_queued_per_client};
    Watchdog watchdog(engine_->progress(), options_.step_timeout, who());
    const LifeSign life_sign = [this] { return engine_->progress().counter.load(); };
    status = run_leader_process(adapter, life_sign, *served, process, StopSignal::install(),
                                [this](const LeaderAddresses& addresses) { tell_ready(addresses); });
    if (absl::IsUnavailable(status) || absl::IsFailedPrecondition(status)) return failed(status, true);
    if (absl::IsAborted(status)) die(absl::StrCat(who(), ": ", status.message()), ExitCode::kUnavailable);
    if (!status.ok()) die(absl::StrCat(who(), ": the engine has failed: ", status.message()));
    if (auto sound = engine_->check_integrity(); !sound.ok()) {
      spdlog::error("after draining: {}", std::string(sound.message()));
    }
    return ExitCode::kOk;
  }

  const WorkerOptions& options_;
  HostGroup& world_;
  const Clock::time_point started_;
  double start_seconds_ = 0, join_seconds_ = 0, load_seconds_ = 0;
  LocalModel model_;
  LocalDevice device_;
  absl::StatusOr<std::optional<DevicePlacement>> named_ = std::nullopt;
  std::unique_ptr<Tokenizer> tokenizer_;
  RankAssignment assignment_;
  std::unique_ptr<HostGroup> replica_;  // outlives the engine
  std::unique_ptr<Engine> engine_;
};

}  // namespace

ExitCode run_worker(const WorkerOptions& options, HostGroup& world, Clock::time_point started) {
  return WorkerProcess(options, world, started).run();
}

}  // namespace trireme::worker
