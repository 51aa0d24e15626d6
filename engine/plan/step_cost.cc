#include "engine/plan/step_cost.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace trireme {
namespace {

constexpr double kActivationBytes = 2;
// Matrix products are done in tiles of outputs, one tile on a multiprocessor at a time.
constexpr double kTile = 128;

/// Time over that of full tiles on busy multiprocessors: the last wave, and rows and columns that do not fill
/// a tile. Fewer tiles than multiprocessors are cut along the sum, so that all have work.
double tile_waste(double rows, double columns, int num_multiprocessors) {
  const double tiles = std::ceil(rows / kTile) * std::ceil(columns / kTile);
  const double waves = tiles / num_multiprocessors;
  return (waves < 1 ? waves : std::ceil(waves)) * num_multiprocessors * kTile * kTile / (rows * columns);
}

}  // namespace

std::vector<std::string> describe(const RooflineFractions& f) {
  return {absl::StrFormat(
              "weights and activations move at %.2f of the memory's peak, the KV cache at %.2f (copy on "
              "an H200; vLLM 0.19 on an H100)",
              f.memory, f.cache_memory),
          absl::StrFormat(
              "products reach %.2f of the peak in 16 bits (stas00/ml-engineering) and %.2f in 8 bits "
              "(Llama-2-7B fp8 on an H200, first token of 2,048: 30.2 ms), less what %g x %g tiles waste "
              "on the device's multiprocessors where their number is known",
              f.products_16_bit, f.products_8_bit, kTile, kTile),
          absl::StrFormat("attention of prompts reaches %.2f of the 16-bit peak (FlashAttention-2 on Hopper)",
                          f.attention),
          absl::StrFormat(
              "each layer takes %g us besides (published single streams: 33 to 85 us over their bytes)",
              f.layer_overhead_us),
          absl::StrFormat("tensor parallelism adds %.0f %% for ranks that do not end together",
                          100 * f.tensor_parallel_skew)};
}

double StepCost::total() const {
  return products + head + cache + attention + elementwise + all_reduce + overhead + skew;
}

absl::StatusOr<StepModel> StepModel::create(const ModelShape& model, const TensorParallelLayout& layout,
                                            const GpuSpec& gpu, const NumberFormat& weights,
                                            AllReduceCost all_reduce, const RooflineFractions& fractions) {
  StepModel step;
  step.model_ = model;
  step.fractions_ = fractions;
  step.all_reduce_ = std::move(all_reduce);
  step.tp_size_ = layout.tp_size;
  step.num_multiprocessors_ = gpu.num_multiprocessors;
  const HeadGroup& heads = layout.heads.at(0);
  step.q_ = static_cast<double>(heads.head_end - heads.head_begin) * model.head_dim;
  step.kv_ = static_cast<double>(heads.kv_head_end - heads.kv_head_begin) * model.head_dim;
  step.intermediate_ = layout.intermediate_per_rank;
  step.vocab_ = layout.vocab_per_rank;
  step.weight_bytes_ = weights.bits / 8.0 + (weights.scale_group > 0 ? 2.0 / weights.scale_group : 0);
  const RankBytes bytes = rank_bytes(model, layout, 0, 1, 1);
  step.kv_per_token_ = static_cast<double>(bytes.kv_per_token);
  step.state_per_sequence_ = static_cast<double>(bytes.state_per_sequence);
  if (absl::Status rates = step.set_rates(gpu, weights); !rates.ok()) return rates;
  return step;
}

absl::Status StepModel::set_rates(const GpuSpec& gpu, const NumberFormat& weights) {
  memory_ = fractions_.memory * gpu.memory_gb_s * 1e9;
  cache_memory_ = fractions_.cache_memory * gpu.memory_gb_s * 1e9;
  const double half = std::max(gpu.f16_tflops, gpu.bf16_tflops);
  double plain = weights.name == "f32" ? gpu.f32_tflops : weights.name == "bf16" ? gpu.bf16_tflops : half;
  if (plain == 0) {
    plain = gpu.f32_tflops;
    note_ = absl::StrCat(gpu.name, " has no ", weights.name == "bf16" ? "bf16" : "16-bit",
                         " product rate in the table: f32's is used");
  }
  if (plain == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the table has no rate of ", gpu.name, " for products in ", weights.name));
  }
  plain_products_ = fractions_.products_16_bit * plain * 1e12;
  attention_ = fractions_.attention * (half > 0 ? half : plain) * 1e12;
  const double eight_bit = weights.name == "fp8"    ? gpu.fp8_tflops
                           : weights.name == "int8" ? gpu.int8_tops
                                                    : 0;
  products_ = eight_bit > 0 ? fractions_.products_8_bit * eight_bit * 1e12 : plain_products_;
  if (weights.bits == 8 && eight_bit == 0) {
    note_ = absl::StrCat(gpu.name, " has no ", weights.name,
                         " product rate in the table: weights are widened to 16 bits");
  }
  return absl::OkStatus();
}

/// `copies` equal matrices [out, in], the same number of rows for each.
double StepModel::product(double rows, double out, double in, double copies) const {
  // Few rows have kernels of their own, which do not fill tiles with nothing.
  const double waste =
      num_multiprocessors_ > 0 ? tile_waste(std::max(rows, kTile), out, num_multiprocessors_) : 1;
  return copies * std::max(out * in * weight_bytes_ / memory_, 2 * rows * out * in * waste / products_);
}

/// Gated MLPs beside each other: those that some row chose are read, and each row pays for its own.
double StepModel::experts(double rows) const {
  const double number = model_.num_experts, chosen = model_.experts_per_token;
  const double weights = 3.0 * model_.hidden_size * intermediate_;
  const double touched = number * (1 - std::pow(1 - chosen / number, rows));
  return model_.num_layers *
         std::max(touched * weights * weight_bytes_ / memory_, 2 * rows * chosen * weights / products_);
}

double StepModel::layer_products(double rows) const {
  if (rows <= 0) return 0;
  const double hidden = model_.hidden_size, layers = model_.num_layers;
  double seconds = product(rows, q_ + 2 * kv_, hidden, layers) + product(rows, hidden, q_, layers);
  if (model_.num_experts > 0) {
    seconds += experts(rows);
  } else {
    seconds +=
        product(rows, 2 * intermediate_, hidden, layers) + product(rows, hidden, intermediate_, layers);
  }
  const double other = static_cast<double>(model_.other_parameters) / tp_size_;
  return seconds + std::max(other * weight_bytes_ / memory_, 2 * rows * other / products_);
}

double StepModel::head(double rows) const {
  if (rows <= 0) return 0;
  const double weights = model_.hidden_size * vocab_;
  constexpr double kPasses = 3;  // logits in f32: written, read for their maximum, read for drawing
  return std::max(weights * model_.weight_dtype_bytes / memory_, 2 * rows * weights / plain_products_) +
         kPasses * 4 * rows * vocab_ / memory_;
}

/// Bytes that move between the products: two residual norms (read two, write two), rotary embedding in place,
/// attention's output, gate and up and their product.
double StepModel::elementwise(double rows) const {
  const double per_row = kActivationBytes * (2 * 4 * model_.hidden_size + 2 * (q_ + 2 * kv_) + 2 * q_ +
                                             5 * intermediate_ * std::max(model_.experts_per_token, 1));
  return rows * model_.num_layers * per_row / memory_;
}

double StepModel::all_reduce_seconds(double rows) const {
  return 2.0 * model_.num_layers * all_reduce_.seconds(rows * model_.hidden_size * kActivationBytes);
}

StepCost StepModel::cost(const StepLoad& load) const {
  const double rows = load.decode_seqs + load.prefill_tokens;
  StepCost cost;
  cost.products = layer_products(rows);
  cost.head = head(load.sampled_rows);
  cost.cache =
      (load.decode_context * kv_per_token_ + 2 * load.decode_seqs * state_per_sequence_) / cache_memory_;
  const double cache_layers = model_.cache_layers > 0 ? model_.cache_layers : model_.num_layers;
  cost.attention = 4 * q_ * cache_layers * load.prefill_attended / attention_;
  cost.elementwise = elementwise(rows);
  cost.overhead = fractions_.layer_overhead_us * 1e-6 * model_.num_layers;
  if (tp_size_ > 1) {
    cost.all_reduce = all_reduce_seconds(rows);
    cost.skew = fractions_.tensor_parallel_skew * cost.total();
  }
  return cost;
}

StepCost StepModel::decode(double batch, double context) const {
  return cost({batch, batch * context, 0, 0, batch});
}

StepCost StepModel::prefill(double tokens) const {
  return cost({0, 0, tokens, tokens * (tokens + 1) / 2, 1});
}

}  // namespace trireme
