#pragma once
// How long one step takes on one rank: a roofline. Each part takes the longer of moving its bytes and doing
// its arithmetic, at published fractions of the device's peaks; parts follow one another.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/plan/all_reduce_cost.h"
#include "engine/plan/gpu_table.h"
#include "engine/plan/model_table.h"

namespace trireme {

/// What engines reach of a device's peaks, from published measurements.
struct RooflineFractions {
  double memory = 0.83;  // weights and activations: copy 0.90 of the peak (H200), streaming 0.92 of that
  double cache_memory = 0.90;     // attention reads its cache at 3.0 of 3.35 TB/s (vLLM 0.19, H100)
  double products_16_bit = 0.80;  // 794 of 989 TFLOP/s (stas00/ml-engineering)
  double products_8_bit = 0.66;   // Llama-2-7B fp8, H200: first token of 2,048 in 30.2 ms (TensorRT-LLM 0.9)
  double attention = 0.35;        // prefill: FlashAttention-2 on Hopper (arXiv:2407.08608)
  double layer_overhead_us =
      70;  // launches, small kernels: 33 to 85 us over the bytes in published single streams
  double tensor_parallel_skew = 0.04;  // ranks do not end together, head and host: 3 to 5 %
};

/// One line each, for reports.
std::vector<std::string> describe(const RooflineFractions& fractions);

/// What one step computes.
struct StepLoad {
  double decode_seqs = 0;
  double decode_context = 0;  // tokens that all of them attend to, together
  double prefill_tokens = 0;
  double prefill_attended = 0;  // tokens that each prompt token attends to, summed over them
  double sampled_rows = 0;
};

/// Seconds of its parts, which add up.
struct StepCost {
  double products = 0;  // of the layers
  double head = 0;
  double cache = 0;        // reading KV cache and states
  double attention = 0;    // arithmetic of prompt tokens
  double elementwise = 0;  // norms, activations, residuals
  double all_reduce = 0;
  double overhead = 0;
  double skew = 0;
  double total() const;
};

/// The costs of one model on one kind of device, cut over `tp_size` of them.
class StepModel {
 public:
  /// `weights` is how the layers' weights are kept. FAILED_PRECONDITION when the table has no rate that the
  /// device could do the products at.
  static absl::StatusOr<StepModel> create(const ModelShape& model, const TensorParallelLayout& layout,
                                          const GpuSpec& gpu, const NumberFormat& weights,
                                          AllReduceCost all_reduce, const RooflineFractions& fractions);

  StepCost cost(const StepLoad& load) const;
  /// Every sequence has `context` tokens and gets one more.
  StepCost decode(double batch, double context) const;
  /// One prompt by itself.
  StepCost prefill(double tokens) const;
  double all_reduce_seconds(double rows) const;
  /// What the device lacks and how that is made up for; empty: nothing.
  const std::string& note() const { return note_; }

 private:
  StepModel() = default;
  absl::Status set_rates(const GpuSpec& gpu, const NumberFormat& weights);
  double product(double rows, double out, double in, double copies) const;
  double experts(double rows) const;
  double layer_products(double rows) const;
  double head(double rows) const;
  double elementwise(double rows) const;

  ModelShape model_;
  RooflineFractions fractions_;
  AllReduceCost all_reduce_;
  int tp_size_ = 1, num_multiprocessors_ = 0;
  double q_ = 0, kv_ = 0, intermediate_ = 0, vocab_ = 0;      // features of the largest rank
  double weight_bytes_ = 2;                                   // of one quantized or plain weight
  double memory_ = 0, cache_memory_ = 0;                      // bytes per second
  double products_ = 0, plain_products_ = 0, attention_ = 0;  // operations per second
  double kv_per_token_ = 0, state_per_sequence_ = 0;
  std::string note_;
};

}  // namespace trireme
