#include "engine/plan/projection.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace trireme {
namespace {

absl::Status check_shard(const ShardTime& shard) {
  const bool times = std::isfinite(shard.step_ms) && shard.step_ms > 0 && std::isfinite(shard.step_ms_p99) &&
                     shard.step_ms_p99 >= 0 && std::isfinite(shard.prefill_tokens_per_s) &&
                     shard.prefill_tokens_per_s >= 0;
  if (times && shard.tp_size >= 1 && shard.batch >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("shard of ", shard.tp_size, ", batch ", shard.batch,
                                                 ": got a step of ", shard.step_ms, " ms (99th percentile ",
                                                 shard.step_ms_p99, ") and ", shard.prefill_tokens_per_s,
                                                 " prompt tokens/s, wanted times above 0"));
}

class Projector {
 public:
  Projector(const ShardRun& run, const std::map<int, CollectiveEstimate>& collectives)
      : run_(run), collectives_(collectives) {}

  ProjectedPoint step(const ShardTime& shard) const {
    ProjectedPoint point;
    point.tp_size = shard.tp_size;
    point.batch = shard.batch;
    point.shard_ms = shard.step_ms;
    point.all_reduce_ms = all_reduce_ms(shard.tp_size, shard.batch);
    const double slow = std::max(shard.step_ms, shard.step_ms_p99);
    point.step_ms = with_skew(
        shard.tp_size, {shard.step_ms + point.all_reduce_ms.low, shard.step_ms + point.all_reduce_ms.central,
                        slow + point.all_reduce_ms.high});
    point.tokens_per_s = {1e3 * shard.batch / point.step_ms.high, 1e3 * shard.batch / point.step_ms.central,
                          1e3 * shard.batch / point.step_ms.low};
    return point;
  }

  /// Of all prompts of a batch, in chunks; all 0 where it was not measured.
  Range prefill_ms(const ShardTime& shard) const {
    if (shard.prefill_tokens_per_s <= 0 || run_.prompt_tokens <= 0) return {};
    const double tokens = static_cast<double>(run_.prompt_tokens) * shard.batch;
    const double alone = 1e3 * tokens / shard.prefill_tokens_per_s;
    const double chunk = run_.max_step_tokens > 0 ? std::min<double>(run_.max_step_tokens, tokens) : tokens;
    const double chunks = std::ceil(tokens / chunk);
    const Range each = all_reduce_ms(shard.tp_size, tokens / chunks);
    return with_skew(shard.tp_size,
                     {alone + chunks * each.low, alone + chunks * each.central, alone + chunks * each.high});
  }

 private:
  /// Two in each layer, for `rows` rows.
  Range all_reduce_ms(int tp_size, double rows) const {
    if (tp_size == 1) return {};
    const CollectiveEstimate& estimate = collectives_.at(tp_size);
    const double bytes = rows * run_.hidden_size * run_.message_element_bytes;
    const double ms = 2.0 * run_.num_layers * estimate.cost.seconds(bytes) * 1e3;
    return {ms * std::max(0.0, 1 - estimate.uncertainty), ms, ms * (1 + estimate.uncertainty)};
  }

  static Range with_skew(int tp_size, const Range& ms) {
    if (tp_size == 1) return ms;
    return {ms.low * (1 + kTensorParallelSkew.low), ms.central * (1 + kTensorParallelSkew.central),
            ms.high * (1 + kTensorParallelSkew.high)};
  }

  const ShardRun& run_;
  const std::map<int, CollectiveEstimate>& collectives_;
};

/// Time of `base_size` devices over that of `size`, per device. The base's own spread is not added: both were
/// measured on the same device.
Range efficiency(double base_ms, int base_size, const Range& ms, int size) {
  if (base_ms <= 0 || ms.central <= 0) return {};
  if (size == base_size) return {1, 1, 1};
  const double share = static_cast<double>(base_size) / size;
  return {share * base_ms / ms.high, share * base_ms / ms.central, share * base_ms / ms.low};
}

}  // namespace

absl::StatusOr<std::vector<ProjectedPoint>> project(const std::vector<ShardTime>& shards, const ShardRun& run,
                                                    const std::map<int, CollectiveEstimate>& collectives) {
  if (run.num_layers < 1 || run.hidden_size < 1 || run.message_element_bytes < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "projection: got ", run.num_layers, " layers of ", run.hidden_size, " features and messages of ",
        run.message_element_bytes, " bytes each, wanted at least 1"));
  }
  std::map<std::pair<int, int>, const ShardTime*> ordered;  // by batch, then size
  for (const ShardTime& shard : shards) {
    if (absl::Status checked = check_shard(shard); !checked.ok()) return checked;
    if (shard.tp_size > 1 && !collectives.contains(shard.tp_size)) {
      return absl::InvalidArgumentError(
          absl::StrCat("no cost of an all-reduce among ", shard.tp_size, " ranks was given"));
    }
    if (!ordered.emplace(std::pair(shard.batch, shard.tp_size), &shard).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("shard of ", shard.tp_size, ", batch ", shard.batch, ": measured twice"));
    }
  }
  const Projector projector(run, collectives);
  std::vector<ProjectedPoint> points;
  const ShardTime* base = nullptr;
  for (const auto& [key, shard] : ordered) {
    if (base == nullptr || base->batch != shard->batch) base = shard;
    ProjectedPoint point = projector.step(*shard);
    point.base_tp_size = base->tp_size;
    point.efficiency =
        efficiency(projector.step(*base).step_ms.central, base->tp_size, point.step_ms, shard->tp_size);
    point.prefill_efficiency = efficiency(projector.prefill_ms(*base).central, base->tp_size,
                                          projector.prefill_ms(*shard), shard->tp_size);
    points.push_back(point);
  }
  return points;
}

}  // namespace trireme
