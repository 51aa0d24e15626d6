// Log probabilities of given and of the most likely tokens, and the counts of tokens that penalties read.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/row_scratch.h"
#include "kernels/cpu/softmax_row.h"

namespace trireme::cpu {
namespace {

constexpr float kNone = std::numeric_limits<float>::quiet_NaN();

/// Puts the k first candidates of x in their order at the front of scratch.candidates; k <= count.
void select_top(const float* x, int64_t k, RowScratch& scratch) {
  const int64_t count = scratch.count, runs = num_runs(count);
  Candidate* const all = scratch.candidates;
  for (int64_t r = 0; r < runs; ++r) {
    const int64_t begin = r * kRun;
    scratch.runs[r].maximum = row_maximum(x + begin, std::min(kRun, count - begin)).value;
    all[r] = {scratch.runs[r].maximum, 0};
  }
  float at_least = -std::numeric_limits<float>::infinity();
  if (k < runs) {  // the k-th largest maximum of a run is not above the k-th largest logit
    std::nth_element(all, all + k - 1, all + runs, before);
    at_least = all[k - 1].weight;
  }
  int64_t found = 0;
  for (int64_t r = 0; r < runs; ++r) {
    if (scratch.runs[r].maximum < at_least) continue;
    const int64_t end = std::min(count, (r + 1) * kRun);
    for (int64_t i = r * kRun; i < end; ++i) {
      if (x[i] >= at_least) all[found++] = {x[i], static_cast<int32_t>(i)};
    }
  }
  std::partial_sort(all, all + k, all + found, before);
}

}  // namespace

void CpuBackend::do_logprobs(const Tensor& logits, int64_t vocab_size, const int32_t* num_top,
                             const Tensor& target_ids, const Tensor& target_logprobs, const Tensor& top_ids,
                             const Tensor& top_logprobs) {
  const size_t thread_bytes = static_cast<size_t>(RowScratch::bytes(vocab_size));
  char* memory = static_cast<char*>(sampling_.get(sampling_bytes(vocab_size), threads_));
  parallel_ranges(threads_, logits.rows, 2, [&](int thread, Range range) {
    RowScratch scratch(memory + thread_bytes * static_cast<size_t>(thread), vocab_size);
    for (int64_t r = range.begin; r < range.end; ++r) {
      const float* x = logits.as<float>() + r * logits.row_stride;
      int32_t* ids = top_ids.as<int32_t>() + r * top_ids.row_stride;
      float* values = top_logprobs.as<float>() + r * top_logprobs.row_stride;
      std::fill(ids, ids + num_top[r], -1);
      std::fill(values, values + num_top[r], kNone);
      float& target_logprob = target_logprobs.as<float>()[r];
      target_logprob = kNone;
      const RowMaximum maximum = row_maximum(x, vocab_size);
      if (maximum.index < 0 || !std::isfinite(maximum.value)) continue;  // there is no softmax
      const double log_sum = std::log(sum_exp(x, vocab_size, maximum.value));
      const int32_t target = target_ids.as<int32_t>()[r];
      if (target >= 0) target_logprob = log_probability(x, target, maximum.value, log_sum);
      const int64_t k = std::min<int64_t>(num_top[r], vocab_size);
      if (k == 0) continue;
      select_top(x, k, scratch);
      for (int64_t i = 0; i < k; ++i) {
        ids[i] = scratch.candidates[i].id;
        values[i] = log_probability(x, ids[i], maximum.value, log_sum);
      }
    }
  });
}

void CpuBackend::do_set_token_counts(const Tensor& counts, int64_t slot, const int32_t* prompt_ids,
                                     int64_t num_prompt, const int32_t* output_ids, int64_t num_output) {
  int32_t* row = counts.as<int32_t>() + slot * counts.row_stride;
  std::fill(row, row + counts.cols, 0);
  for (int64_t i = 0; i < num_prompt; ++i) row[prompt_ids[i]] = 1;
  for (int64_t i = 0; i < num_output; ++i) row[output_ids[i]] += 2;
}

void CpuBackend::do_count_tokens(const Tensor& counts, const int32_t* slots, const Tensor& ids) {
  for (int64_t i = 0; i < ids.size(); ++i) {
    const int32_t id = ids.as<int32_t>()[i];
    if (slots[i] >= 0 && id >= 0) counts.as<int32_t>()[slots[i] * counts.row_stride + id] += 2;
  }
}

}  // namespace trireme::cpu
