#include "engine/plan/planner.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace trireme {
namespace {

constexpr int kDefaultContext = 4096;
constexpr int kDefaultBatch = 256;
constexpr int kMaxDevices = 4096;

double gib(int64_t bytes) { return static_cast<double>(bytes) / (int64_t{1} << 30); }

/// Bytes that `batch` sequences of `context` tokens take beside the weights, or would need.
int64_t sequence_bytes(const RankBytes& bytes, int64_t batch, int64_t context) {
  return batch * (context * bytes.kv_per_token + bytes.state_per_sequence);
}

absl::Status check_request(PlanRequest& request) {
  if (absl::Status devices = check_devices(request.devices); !devices.ok()) return devices;
  const int longest = request.model.max_context;
  if (request.context == 0)
    request.context = longest > 0 ? std::min(kDefaultContext, longest) : kDefaultContext;
  if (request.context < 1 || (longest > 0 && request.context > longest)) {
    return absl::InvalidArgumentError(
        absl::StrCat("context: got ", request.context, ", wanted 1 to the model's ", longest));
  }
  if (request.prompt_tokens == 0) request.prompt_tokens = std::max(1, request.context / 2);
  if (request.prompt_tokens < 1 || request.prompt_tokens > request.context) {
    return absl::InvalidArgumentError(absl::StrCat("prompt tokens: got ", request.prompt_tokens,
                                                   ", wanted 1 to the context's ", request.context));
  }
  if (request.batch < 0 || request.max_step_tokens < 1 || request.devices_per_host < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "batch ", request.batch, ", step tokens ", request.max_step_tokens, ", devices per host ",
        request.devices_per_host, ": wanted none below 0, the last two at least 1"));
  }
  if (request.usd_per_device_hour == 0) request.usd_per_device_hour = request.gpu.usd_per_hour;
  return absl::OkStatus();
}

class Planner {
 public:
  Planner(const PlanRequest& request, const ModelShape& shape, const AllReduceTable& table)
      : request_(request), shape_(shape), table_(table) {}

  LayoutEstimate estimate(int devices, int tp_size) {
    LayoutEstimate result;
    result.devices = devices;
    result.tp_size = tp_size;
    result.replicas = devices / tp_size;
    result.memory_bytes = request_.gpu.usable_bytes();
    auto layout = layout_tensor_parallel(shape_, tp_size);
    if (!layout.ok()) {
      result.refused = std::string(layout.status().message());
      return result;
    }
    fill_bytes(*layout, result);
    if (!result.refused.empty()) return result;
    AllReduceCost cost = table_.cost(request_.gpu, tp_size, request_.devices_per_host, request_.all_reduce);
    result.all_reduce_origin = cost.origin();
    auto step = StepModel::create(shape_, *layout, request_.gpu, request_.weights, std::move(cost),
                                  request_.fractions);
    if (!step.ok()) {
      result.refused = std::string(step.status().message());
      return result;
    }
    note_ = step->note();
    fill_rates(*step, result);
    return result;
  }

  const std::string& note() const { return note_; }

 private:
  int wanted_batch(const LayoutEstimate& result) const {
    return (request_.batch + result.replicas - 1) / result.replicas;
  }

  void fill_bytes(const TensorParallelLayout& layout, LayoutEstimate& result) {
    const DeviceOverhead overhead = cuda_overhead(result.tp_size);
    const auto bytes_for = [&](int64_t batch) {
      return rank_bytes(shape_, layout, 0, request_.max_step_tokens, batch, overhead);
    };
    for (int rank = 0; rank < result.tp_size; ++rank) {
      result.weight_bytes_all += rank_bytes(shape_, layout, rank, 1, 1).weights;
    }
    result.largest_batch = largest_batch(shape_, layout, result.memory_bytes, request_.context,
                                         request_.max_step_tokens, kMaxPlannedBatch, overhead);
    const int least = std::max(1, request_.batch > 0 ? wanted_batch(result) : 1);
    result.bytes = bytes_for(std::max(result.largest_batch, 1));
    result.kv_cache_bytes =
        std::max<int64_t>(0, kv_cache_budget(result.memory_bytes - result.bytes.weights, result.bytes));
    if (result.largest_batch >= least) return;
    const RankBytes needed = bytes_for(least);
    const double wanted = gib(needed.weights + needed.beside_weights()) +
                          gib(sequence_bytes(needed, least, request_.context)) / kKvCacheShare;
    result.refused = absl::StrFormat(
        "does not fit: %d sequence%s of %d tokens need %.1f GiB per device (weights %.1f, KV cache %.1f, "
        "rest "
        "%.1f), %s has %.1f usable",
        least, least == 1 ? "" : "s", request_.context, wanted, gib(needed.weights),
        gib(sequence_bytes(needed, least, request_.context)),
        wanted - gib(needed.weights + sequence_bytes(needed, least, request_.context)), request_.gpu.name,
        gib(result.memory_bytes));
    if (result.largest_batch > 0) {
      result.refused += absl::StrFormat("; %d fit", result.largest_batch);
    }
  }

  DecodeEstimate decode(const StepModel& step, const LayoutEstimate& result, int batch) const {
    DecodeEstimate estimate;
    estimate.batch = batch;
    estimate.step = step.decode(batch, request_.context);
    estimate.user_tokens_per_s = 1 / estimate.step.total();
    estimate.total_tokens_per_s = estimate.user_tokens_per_s * batch * result.replicas;
    const double usd_per_hour = request_.usd_per_device_hour * result.devices;
    estimate.usd_per_million_tokens = usd_per_hour / (estimate.total_tokens_per_s * 3600) * 1e6;
    return estimate;
  }

  void fill_rates(const StepModel& step, LayoutEstimate& result) const {
    result.latency = decode(step, result, 1);
    const int batch =
        request_.batch > 0 ? wanted_batch(result) : std::min(result.largest_batch, kDefaultBatch);
    result.throughput = decode(step, result, batch);
    if (request_.batch > 0 && request_.batch < batch * result.replicas) {  // the last replicas have fewer
      const double share = static_cast<double>(request_.batch) / (batch * result.replicas);
      result.throughput.total_tokens_per_s *= share;
      result.throughput.usd_per_million_tokens /= share;
    }
    const double prefill = step.prefill(request_.prompt_tokens).total();
    result.ttft_ms = prefill * 1e3;
    result.prefill_tokens_per_s = result.replicas * request_.prompt_tokens / prefill;
    result.all_reduce_us =
        result.tp_size > 1 ? step.all_reduce_seconds(batch) / (2.0 * shape_.num_layers) * 1e6 : 0;
  }

  const PlanRequest& request_;
  const ModelShape& shape_;
  const AllReduceTable& table_;
  std::string note_;
};

/// How good a layout is for the target, among all and among those of as many devices.
double merit(const LayoutEstimate& layout, PlanTarget target) {
  return target == PlanTarget::latency ? layout.latency.user_tokens_per_s
                                       : layout.throughput.total_tokens_per_s / layout.devices;
}

void mark_best(PlanReport& report) {
  const PlanTarget target = report.request.target;
  for (int devices : report.request.devices) {
    LayoutEstimate* best = nullptr;
    for (LayoutEstimate& layout : report.layouts) {
      if (layout.devices != devices || !layout.refused.empty()) continue;
      if (best == nullptr || merit(layout, target) > merit(*best, target)) best = &layout;
    }
    if (best != nullptr) best->best = true;
  }
  for (size_t i = 0; i < report.layouts.size(); ++i) {
    const LayoutEstimate& layout = report.layouts[i];
    if (!layout.refused.empty()) continue;
    if (report.best < 0 ||
        merit(layout, target) > merit(report.layouts[static_cast<size_t>(report.best)], target)) {
      report.best = static_cast<int>(i);
    }
  }
}

void add_notes(const std::string& step_note, PlanReport& report) {
  const PlanRequest& request = report.request;
  if (!step_note.empty()) report.notes.push_back(step_note);
  if (!request.model.servable()) {
    report.notes.push_back(
        absl::StrCat(request.model.shape.name, ": arithmetic alone, this build has no such architecture"));
  }
  if (request.weights.quantized || request.cache.quantized) {
    report.notes.push_back("arithmetic alone: this build serves checkpoints in f32, f16 and bf16");
  }
  double capability = 0;
  constexpr double kOldestBuilt = 8.0;
  if (!absl::SimpleAtod(request.gpu.compute_capability, &capability) || capability < kOldestBuilt) {
    report.notes.push_back(absl::StrCat(request.gpu.name,
                                        ": arithmetic alone, the CUDA backend is for compute "
                                        "capability 8.0 and newer"));
  }
}

}  // namespace

absl::Status check_devices(const std::vector<int>& devices) {
  if (devices.empty()) return absl::InvalidArgumentError("devices: got none, wanted counts such as 1,2,4,8");
  int before = 0;
  for (int count : devices) {
    if (count < 1 || count > kMaxDevices) {
      return absl::InvalidArgumentError(
          absl::StrCat("devices: got ", count, ", wanted counts from 1 to ", kMaxDevices));
    }
    if (count <= before) {
      return absl::InvalidArgumentError(
          absl::StrCat("devices: got ", count, " after ", before,
                       ", wanted counts that rise, each once, such as 1,2,4,8"));
    }
    before = count;
  }
  return absl::OkStatus();
}

int largest_batch(const ModelShape& model, const TensorParallelLayout& layout, int64_t memory_bytes,
                  int64_t context, int64_t max_step_tokens, int limit, const DeviceOverhead& overhead,
                  double kv_share) {
  const auto fits = [&](int batch) {
    const RankBytes bytes = rank_bytes(model, layout, 0, max_step_tokens, batch, overhead);
    return kv_cache_budget(memory_bytes - bytes.weights, bytes, kv_share) >=
           sequence_bytes(bytes, batch, context);
  };
  int low = 0, high = limit;  // `low` fits (or is none), what is above `high` is not asked for
  while (low < high) {
    const int middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low;
}

absl::StatusOr<PlanReport> plan_deployment(PlanRequest request, const AllReduceTable& all_reduce) {
  if (absl::Status checked = check_request(request); !checked.ok()) return checked;
  auto shape = with_formats(request.model.shape, request.weights, request.cache);
  if (!shape.ok()) return shape.status();
  PlanReport report;
  report.request = std::move(request);
  Planner planner(report.request, *shape, all_reduce);
  for (int devices : report.request.devices) {
    for (int tp_size = 1; tp_size <= devices; ++tp_size) {
      if (devices % tp_size == 0) report.layouts.push_back(planner.estimate(devices, tp_size));
    }
  }
  mark_best(report);
  report.assumptions = describe(report.request.fractions);
  report.assumptions.push_back(
      absl::StrFormat("memory: 2 %% kept by the driver; per process %.0f MiB for the CUDA context, %.0f MiB "
                      "of workspace and, "
                      "with tensor parallelism, %.0f MiB for the communicator (allowances); the KV cache "
                      "takes %.2f of the rest",
                      gib(cuda_overhead(2).context) * 1024, gib(cuda_overhead(2).workspace) * 1024,
                      gib(cuda_overhead(2).communicator) * 1024, kKvCacheShare));
  add_notes(planner.note(), report);
  return report;
}

}  // namespace trireme
