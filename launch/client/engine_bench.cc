#include "launch/client/engine_bench.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>

#include "engine/device_placement.h"
#include "engine/loading.h"
#include "engine/models/causal_lm.h"
#include "engine/parallel/agreement.h"
#include "engine/runner/trace_file.h"
#include "engine/weights/weight_loader.h"
#include "kernels/ceilings.h"

namespace trireme::client {
namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::minutes kDeadline{10};
constexpr int64_t kLeastProductRows = 512, kMostProductRows = 2048;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1) + 0.5)];
}
double median(std::vector<double> values) { return quantile(std::move(values), 0.5); }

/// By name and in order, all but idle, and what they leave of the time between two steps and around them.
std::vector<std::pair<std::string, double>> milliseconds_by_phase(const PhaseTimes& times, double divisor) {
  std::vector<std::pair<std::string, double>> result;
  const auto add = [&](std::string_view name, int64_t ns) {
    result.emplace_back(name, static_cast<double>(ns) * 1e-6 / divisor);
  };
  for (int i = 0; i < kNumPhases; ++i) {
    const Phase phase = static_cast<Phase>(i);
    if (phase != Phase::idle) add(phase_name(phase), times.of(phase));
  }
  add("unaccounted", times.unaccounted_ns());
  return result;
}

/// The ceilings of one moment, all ranks together.
struct CeilingFigures {
  double read_gb_s = 0;
  double product_gflop_s = 0;  // product_rows of the report
  double rows_gflop_s = 0;     // as many rows as the batch
};

/// What one repeat took.
struct Run {
  double prefill_seconds = 0;
  std::vector<double> decode_seconds;
  double mean_context_len = 0;
  PhaseTimes decode_phases;  // of all decode steps
};

class Bench {
 public:
  Bench(const EngineBenchOptions& options, HostGroup& world) : options_(options), world_(world) {}

  absl::StatusOr<EngineBenchReport> run() {
    const auto begin = Clock::now();
    report_.product_rows =
        std::clamp<int64_t>(options_.engine.max_step_tokens, kLeastProductRows, kMostProductRows);
    EngineConfig config = options_.engine;
    config.leave_bytes = static_cast<int64_t>(bytes_to_leave());
    auto engine = Engine::create(config, world_);
    if (!engine.ok()) return engine.status();
    engine_ = *std::move(engine);
    report_.load_seconds = seconds_since(begin);
    threads_ = options_.engine.num_threads > 0 ? options_.engine.num_threads
                                               : static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
    if (absl::Status cut = set_shape(engine_->compute_dtype()); !cut.ok()) return cut;
    auto ceilings =
        engine_->backend_name() == "cpu"
            ? create_cpu_ceilings(options_.probe_bytes / static_cast<size_t>(world_.size()), threads_)
            : create_cuda_ceilings(device(), device_probe_bytes());
    if (absl::Status all = agree_on_success(world_, ceilings.status(), kDeadline); !all.ok()) return all;
    ceilings_ = *std::move(ceilings);
    report_.memory_name = ceilings_->memory_name();
    report_.product_name = ceilings_->product_name();
    for (const int prompt_tokens : options_.prompt_tokens) {
      for (const int batch : options_.batches) {
        auto fits = fits_cache(batch, prompt_tokens);
        if (!fits.ok()) return fits.status();
        if (!*fits) continue;
        if (absl::Status status = measure_batch(batch, prompt_tokens); !status.ok()) return status;
      }
    }
    if (absl::Status traced = trace(); !traced.ok()) return traced;
    finish_report();
    return std::move(report_);
  }

 private:
  /// Of a GPU, for the ceilings; cut into more ranks than there can be, the engine will say so.
  size_t bytes_to_leave() {
    const auto dtype =
        wanted_compute_dtype(options_.engine.compute_dtype, options_.engine.model.checkpoint_dtype);
    return set_shape(dtype).ok() ? device_probe_bytes() + (size_t{64} << 20) : 0;
  }
  absl::Status set_shape(DType dtype) {
    shape_ = model_shape(options_.engine.model, "", dtype, dtype);
    const int size = options_.engine.shard_size > 0 ? options_.engine.shard_size : world_.size();
    auto layout = layout_tensor_parallel(shape_, size);
    if (layout.ok()) layout_ = *std::move(layout);
    return layout.status();
  }
  /// The GPU that the engine has taken, in the same way.
  int device() const {
    if (options_.engine.placement) return options_.engine.placement->device;
    return place_on_device(options_.engine.device, world_.local_rank(), world_.local_size(),
                           num_cuda_devices(), /*may_share=*/true)
        ->device;
  }
  /// More than any cache, and room for the largest product that is measured, its workspace included.
  size_t device_probe_bytes() const {
    const int64_t rows = std::max<int64_t>(
        report_.product_rows, *std::max_element(options_.batches.begin(), options_.batches.end()));
    const int64_t wide = 2 * int64_t{layout_.intermediate_per_rank}, hidden = shape_.hidden_size;
    const int64_t elements = wide * hidden + rows * (wide + hidden);
    return std::max(options_.probe_bytes,
                    static_cast<size_t>(elements * shape_.weight_dtype_bytes) + (size_t{64} << 20));
  }
  int tp_rank() const { return options_.engine.shard_size > 0 ? options_.engine.shard_rank : 0; }

  /// Bytes of weights that one decode step reads on one rank: everything but an untied embedding's table.
  double weight_bytes_per_step() const {
    const double all = static_cast<double>(rank_bytes(shape_, layout_, tp_rank(), 1, 1).weights);
    const double table =
        static_cast<double>(layout_.vocab_per_rank) * shape_.hidden_size * shape_.weight_dtype_bytes;
    return shape_.tie_word_embeddings ? all : all - table;
  }
  /// Multiplications and additions of one prompt token on one rank, without the head, which only the last one
  /// needs.
  double flops_per_prompt_token(double mean_context) const {
    const HeadGroup& heads = layout_.heads[static_cast<size_t>(tp_rank())];
    const double q = static_cast<double>(heads.head_end - heads.head_begin) * shape_.head_dim;
    const double kv = static_cast<double>(heads.kv_head_end - heads.kv_head_begin) * shape_.head_dim;
    const double hidden = shape_.hidden_size;
    const double per_layer =
        2 * hidden * (2 * q + 2 * kv + 3.0 * layout_.intermediate_per_rank) + 4 * q * mean_context;
    return shape_.num_layers * per_layer;
  }

  /// Sums a figure over the ranks, which measure at the same time.
  absl::StatusOr<double> sum_of_ranks(double mine) {
    auto all = world_.gather(std::string(reinterpret_cast<const char*>(&mine), sizeof(mine)), 0, kDeadline);
    if (!all.ok()) return all.status();
    double sum = 0;
    for (const std::string& bytes : *all) {
      double one = 0;
      std::memcpy(&one, bytes.data(), std::min(bytes.size(), sizeof(one)));
      sum += one;
    }
    return sum;
  }

  absl::StatusOr<double> probe_products(int64_t rows) {
    if (absl::Status together = world_.barrier(kDeadline); !together.ok()) return together;
    // The merged gate and up product, the largest of a layer.
    auto rate = ceilings_->product_gflop_s(rows, 2 * int64_t{layout_.intermediate_per_rank},
                                           shape_.hidden_size, engine_->compute_dtype());
    return sum_of_ranks(rate.ok() ? *rate : 0);  // 0: the library has none on this device
  }

  absl::StatusOr<CeilingFigures> probe(int batch) {
    CeilingFigures ceilings;
    if (absl::Status together = world_.barrier(kDeadline); !together.ok()) return together;
    auto read = sum_of_ranks(ceilings_->memory_gb_s());
    if (!read.ok()) return read.status();
    auto product = probe_products(report_.product_rows);
    if (!product.ok()) return product.status();
    auto rows = probe_products(batch);
    if (!rows.ok()) return rows.status();
    ceilings.read_gb_s = *read;
    ceilings.product_gflop_s = *product;
    ceilings.rows_gflop_s = *rows;
    return ceilings;
  }

  /// Whether the cache holds all sequences of a batch to their ends; rank 0, which knows, notes those it does
  /// not.
  absl::StatusOr<bool> fits_cache(int batch, int prompt_tokens) {
    int64_t fits = 1;
    if (world_.rank() == 0) {
      const int64_t block = options_.engine.block_size;
      const auto blocks_for = [&](int64_t tokens) { return (tokens + block - 1) / block; };
      // The last one is admitted beside the others' prompts and a block for each of them to grow into.
      const int64_t to_end = batch * blocks_for(prompt_tokens + options_.output_tokens),
                    to_begin = batch * blocks_for(prompt_tokens) + batch - 1;
      const int64_t wanted = std::max(to_end, to_begin), has = engine_->stats().blocks_total;
      fits = wanted <= has ? 1 : 0;
      if (fits == 0) report_.left_out.push_back({batch, prompt_tokens, wanted * block, has * block});
    }
    return agree_on_minimum(world_, fits, kDeadline);
  }

  std::vector<Request> make_requests(int batch, int prompt_tokens, int repeat) {
    std::vector<Request> requests;
    std::mt19937 random(static_cast<uint32_t>(1000 * batch + repeat));
    std::uniform_int_distribution<int32_t> id(0, options_.engine.model.vocab_size - 1);
    for (int i = 0; i < batch; ++i) {
      Request request;
      request.handle = ++last_handle_;
      for (int t = 0; t < prompt_tokens; ++t) request.prompt.push_back(id(random));
      request.stopping.max_tokens = options_.output_tokens;
      request.stopping.ignore_eos = true;
      requests.push_back(std::move(request));
    }
    return requests;
  }

  /// Prefill: until every request has its first token. Decode: the steps after that in which all take part.
  absl::StatusOr<Run> lead(int batch, int prompt_tokens, int repeat) {
    Run run;
    std::vector<Request> requests = make_requests(batch, prompt_tokens, repeat);
    const RequestHandle first = requests.front().handle;
    for (Request& request : requests) {
      if (absl::Status submitted = engine_->submit(std::move(request)); !submitted.ok()) return submitted;
    }
    std::vector<int> produced(static_cast<size_t>(batch), 0);
    std::vector<TokenOutput> outputs;
    const auto begin = Clock::now();
    bool prefilled = false, finished = false;
    while (!finished) {
      const auto step_begin = Clock::now();
      outputs.clear();
      auto stepped = engine_->step(outputs);
      if (!stepped.ok()) return stepped.status();
      if (prefilled) run.decode_seconds.push_back(seconds_since(step_begin));
      for (const TokenOutput& output : outputs) {
        CHECK_GE(output.handle, first);
        ++produced[output.handle - first];
        finished = finished || output.finish != FinishReason::none;
      }
      if (!prefilled && *std::min_element(produced.begin(), produced.end()) > 0) {
        prefilled = true;
        run.prefill_seconds = seconds_since(begin);
        run.decode_phases = engine_->phases().snapshot();
      }
    }
    if (!prefilled)
      return absl::InvalidArgumentError("output tokens: too few for a step in which all take part");
    run.decode_phases = engine_->phases().snapshot() - run.decode_phases;
    run.mean_context_len = prompt_tokens + 0.5 * options_.output_tokens;
    for (int i = 0; i < batch; ++i) engine_->cancel(first + static_cast<RequestHandle>(i));
    do {  // also without work: the last outputs of what was cancelled are to be taken now, not in the next
          // run
      outputs.clear();
      auto stepped = engine_->step(outputs);
      if (!stepped.ok()) return stepped.status();
    } while (engine_->has_work());
    if (absl::Status stopped = engine_->broadcast_stop(); !stopped.ok()) return stopped;
    return run;
  }

  absl::StatusOr<Run> run_once(int batch, int prompt_tokens, int repeat) {
    if (world_.rank() == 0) return lead(batch, prompt_tokens, repeat);
    for (;;) {
      auto followed = engine_->follow(kDeadline);
      if (!followed.ok()) return followed.status();
      if (!*followed) return Run{};
    }
  }

  absl::Status measure_batch(int batch, int prompt_tokens) {
    auto warm_up = run_once(batch, prompt_tokens, -1);
    if (!warm_up.ok()) return warm_up.status();
    std::vector<Run> runs;
    std::vector<CeilingFigures> ceilings;
    auto before = probe(batch);
    if (!before.ok()) return before.status();
    for (int repeat = 0; repeat < options_.repeats; ++repeat) {
      auto run = run_once(batch, prompt_tokens, repeat);
      if (!run.ok()) return run.status();
      auto after = probe(batch);
      if (!after.ok()) return after.status();
      runs.push_back(*std::move(run));
      ceilings.push_back({(before->read_gb_s + after->read_gb_s) / 2,
                          (before->product_gflop_s + after->product_gflop_s) / 2,
                          (before->rows_gflop_s + after->rows_gflop_s) / 2});
      before = std::move(after);
    }
    if (world_.rank() == 0) report_.batches.push_back(figures(batch, prompt_tokens, runs, ceilings));
    return absl::OkStatus();
  }

  BatchFigures figures(int batch, int prompt_tokens, const std::vector<Run>& runs,
                       const std::vector<CeilingFigures>& ceilings) {
    const double ranks = world_.size();
    std::vector<double> prefill, prefill_rate, prefill_fraction, decode, decode_all, read_rate, read_fraction,
        rows_fraction;
    for (size_t i = 0; i < runs.size(); ++i) {
      const Run& run = runs[i];
      prefill.push_back(static_cast<double>(batch) * prompt_tokens / run.prefill_seconds);
      prefill_rate.push_back(ranks * prefill.back() * flops_per_prompt_token(prompt_tokens / 2.0) * 1e-9);
      prefill_fraction.push_back(prefill_rate.back() / ceilings[i].product_gflop_s);
      const double step = median(run.decode_seconds);
      decode.push_back(step);
      decode_all.insert(decode_all.end(), run.decode_seconds.begin(), run.decode_seconds.end());
      const double kv = batch * run.mean_context_len *
                        static_cast<double>(rank_bytes(shape_, layout_, tp_rank(), 1, 1).kv_per_token);
      read_rate.push_back(ranks * (weight_bytes_per_step() + kv) / step * 1e-9);
      read_fraction.push_back(read_rate.back() / ceilings[i].read_gb_s);
      const double flops = ranks * 2 * batch * weight_bytes_per_step() / shape_.weight_dtype_bytes;
      rows_fraction.push_back(flops / step * 1e-9 / ceilings[i].rows_gflop_s);
      read_probes_.push_back(ceilings[i].read_gb_s);
      product_probes_.push_back(ceilings[i].product_gflop_s);
    }
    BatchFigures row;
    row.batch = batch;
    row.prompt_tokens = prompt_tokens;
    row.prefill_tokens_per_s = median(prefill);
    row.prefill_gflop_s = median(prefill_rate);
    row.prefill_fraction = median(prefill_fraction);
    row.decode_step_ms = median(decode) * 1e3;
    row.decode_step_ms_p99 = quantile(decode_all, 0.99) * 1e3;
    row.decode_tokens_per_s = batch / median(decode);
    row.decode_gb_s = median(read_rate);
    row.decode_bandwidth_fraction = median(read_fraction);
    row.decode_rows_fraction = median(rows_fraction);
    const double fraction = std::max(row.decode_bandwidth_fraction, row.decode_rows_fraction);
    row.limit = row.decode_bandwidth_fraction >= row.decode_rows_fraction ? report_.memory_name
                                                                          : report_.product_name;
    row.ceiling_tokens_per_s = row.decode_tokens_per_s / fraction;
    const auto first_row =
        std::find_if(report_.batches.begin(), report_.batches.end(),
                     [&](const auto& other) { return other.prompt_tokens == prompt_tokens; });
    const double first =
        first_row == report_.batches.end() ? row.decode_tokens_per_s : first_row->decode_tokens_per_s;
    row.decode_speedup = row.decode_tokens_per_s / first;
    set_phases(runs, row);
    return row;
  }

  static void set_phases(const std::vector<Run>& runs, BatchFigures& row) {
    double steps = 0;
    PhaseTimes sum;
    for (const Run& run : runs) {
      steps += static_cast<double>(run.decode_seconds.size());
      sum = sum - (PhaseTimes{} - run.decode_phases);
    }
    row.decode_phases_ms = milliseconds_by_phase(sum, steps);
    const auto wall = static_cast<double>(sum.wall_ns);
    row.decode_host_fraction =
        1 - static_cast<double>(sum.of(Phase::compute) + sum.of(Phase::collective)) / wall;
    row.decode_unaccounted_fraction = static_cast<double>(sum.unaccounted_ns()) / wall;
  }

  absl::Status trace() {
    if (options_.trace_file.empty()) return absl::OkStatus();
    if (world_.rank() != 0) return engine_->follow(kDeadline).status();
    const auto ranks = engine_->gather_trace();
    if (!ranks.ok()) return ranks.status();
    return write_trace(options_.trace_file, {0, "bench"}, *ranks);
  }

  void finish_report() {
    report_.backend = engine_->backend_name();
    report_.compute_dtype = std::string(dtype_name(engine_->compute_dtype()));
    report_.tp_size = layout_.tp_size;
    report_.threads = threads_;
    report_.read_gb_s = median(read_probes_);
    report_.product_gflop_s = median(product_probes_);
    report_.ledger = engine_->ledger();
    report_.resident_bytes = report_.ledger.resident_bytes;
    report_.notes = engine_->notes();
    report_.phases_ms = milliseconds_by_phase(engine_->phases().snapshot(), 1);
  }

  const EngineBenchOptions& options_;
  HostGroup& world_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<Ceilings> ceilings_;
  ModelShape shape_;
  TensorParallelLayout layout_;
  int threads_ = 1;
  RequestHandle last_handle_ = 0;
  std::vector<double> read_probes_, product_probes_;
  EngineBenchReport report_;
};

}  // namespace

absl::StatusOr<EngineBenchReport> run_engine_bench(const EngineBenchOptions& options, HostGroup& world) {
  return Bench(options, world).run();
}

}  // namespace trireme::client
