// Drawing tokens. Candidates are ordered by falling probability, equal ones by rising id; top-k and top-p
// each keep a prefix of that order, whose last member is found by selection instead of a sort of the
// vocabulary. Passes over the row keep sums and maxima of runs, so that most of it need not be looked at
// again.

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/logit_edits.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/row_scratch.h"
#include "kernels/cpu/softmax_row.h"

namespace trireme::cpu {
namespace {

using Row = RowScratch;

int bucket(float weight) { return static_cast<int>(std::bit_cast<uint32_t>(weight) >> 17); }

/// Calls body(id, weight) for the weights of at least `at_least`, in order of id.
template <typename Body>
void for_each_at_least(const Row& row, float at_least, Body&& body) {
  for (int64_t r = 0; r < num_runs(row.count); ++r) {
    if (row.runs[r].maximum < at_least) continue;
    const int64_t end = std::min(row.count, (r + 1) * kRun);
    for (int64_t i = r * kRun; i < end; ++i) {
      if (row.weights[i] >= at_least) body(static_cast<int32_t>(i), row.weights[i]);
    }
  }
}

/// Puts the k first candidates at the front of row.candidates, the last of them behind the others.
void select_top_k(const Row& row, int64_t k) {
  Candidate* const all = row.candidates;
  float at_least = 0;
  if (k < num_runs(row.count)) {  // the k-th largest maximum of a run is not above the k-th largest weight
    for (int64_t r = 0; r < num_runs(row.count); ++r) all[r] = {row.runs[r].maximum, 0};
    std::nth_element(all, all + k - 1, all + num_runs(row.count), before);
    at_least = all[k - 1].weight;
  }
  int64_t found = 0;
  for_each_at_least(row, at_least, [&](int32_t id, float weight) { all[found++] = {weight, id}; });
  std::nth_element(all, all + k - 1, all + found, before);
}

/// The last candidate of the shortest prefix of the sorted candidates whose weights reach `mass`; else the
/// last of all.
Candidate last_of_mass(Candidate* begin, Candidate* end, double mass) {
  std::sort(begin, end, before);
  double sum = 0;
  for (const Candidate* c = begin; c < end; ++c) {
    sum += c->weight;
    if (sum >= mass) return *c;
  }
  return end[-1];
}

/// The same over the whole row.
Candidate last_of_mass(const Row& row, double mass) {
  // Weights below this are not needed: all of them together are less than half of what may be left out.
  const float at_least =
      std::max(static_cast<float>(0.5 * (row.total - mass) / static_cast<double>(row.count)),
               std::numeric_limits<float>::min());
  std::fill(row.histogram, row.histogram + kBuckets, 0.0);
  for_each_at_least(row, at_least, [&](int32_t, float weight) { row.histogram[bucket(weight)] += weight; });
  int at = kBuckets - 1;  // the bucket of the largest weight, 1
  double above = 0;
  for (int b = at; b >= bucket(at_least) && above + row.histogram[at] < mass; --b) {
    if (row.histogram[b] == 0 || b == at)
      continue;  // so that the last one is not empty, whatever rounding does
    above += row.histogram[at];
    at = b;
  }
  int64_t found = 0;
  for_each_at_least(row, std::bit_cast<float>(static_cast<uint32_t>(at) << 17),
                    [&](int32_t id, float weight) {
                      if (bucket(weight) == at) row.candidates[found++] = {weight, id};
                    });
  return last_of_mass(row.candidates, row.candidates + found, mass - above);
}

/// The last candidate that top-k and top-p keep.
Candidate last_kept(const Row& row, const SamplingRow& sampling) {
  const double mass = std::max(0.0, static_cast<double>(sampling.top_p) * row.total);
  if (sampling.top_k <= 0 || sampling.top_k >= row.count) return last_of_mass(row, mass);
  select_top_k(row, sampling.top_k);
  if (sampling.top_p >= 1) return row.candidates[sampling.top_k - 1];
  return last_of_mass(row.candidates, row.candidates + sampling.top_k, mass);
}

/// Makes the weights of all candidates after `last`, and those below `at_least`, zero.
void drop(Row& row, Candidate last, float at_least) {
  const float up_to = std::max(at_least, last.weight);  // for ids up to last.id
  const float beyond = std::max(at_least, std::nextafter(last.weight, 2.0f));
  for (int64_t r = 0; r < num_runs(row.count); ++r) {
    const int64_t begin = r * kRun, end = std::min(row.count, begin + kRun);
    const int64_t border = std::clamp<int64_t>(int64_t{last.id} + 1, begin, end);
    row.runs[r].sum = drop_below(row.weights + begin, border - begin, up_to) +
                      drop_below(row.weights + border, end - border, beyond);
  }
}

/// The id at which the cumulative weight, in order of id, passes u of the sum.
int32_t invert(const Row& row, double u) {
  double mass = 0;
  for (int64_t r = 0; r < num_runs(row.count); ++r) mass += row.runs[r].sum;
  double before_run = 0;
  int64_t run = -1;  // the last with any weight is right when rounding keeps the sum below the target
  for (int64_t r = 0; r < num_runs(row.count); ++r) {
    if (row.runs[r].sum == 0) continue;
    if (run >= 0) before_run += row.runs[run].sum;
    run = r;
    if (before_run + row.runs[r].sum > u * mass) break;
  }
  double sum = before_run;
  int32_t id = -1;
  for (int64_t i = run * kRun; i < std::min(row.count, (run + 1) * kRun); ++i) {
    if (row.weights[i] == 0) continue;
    id = static_cast<int32_t>(i);
    sum += row.weights[i];
    if (sum > u * mass) break;
  }
  return id;
}

int32_t draw(const float* logits, float maximum, const SamplingRow& sampling, Row& row) {
  // Of a temperature below 1 / FLT_MAX the inverse is infinite, and infinity times 0 is no number.
  const float inverse = std::min(1.0f / sampling.temperature, std::numeric_limits<float>::max());
  row.total = exp_weights(logits, row.count, maximum, inverse, row.weights, row.runs);
  Candidate last = {0, std::numeric_limits<int32_t>::max()};
  if ((sampling.top_k > 0 && sampling.top_k < row.count) || sampling.top_p < 1)
    last = last_kept(row, sampling);
  if (last.weight > 0 || sampling.min_p > 0) drop(row, last, sampling.min_p);  // the largest weight is 1
  return invert(row, sampling_uniform(sampling.seed, sampling.sample_index, sampling.output_index));
}

/// The token of one row, whose maximum is `maximum`; -1 where the edits leave none.
int32_t choose(const float* x, RowMaximum maximum, const SamplingRow& sampling, const RowEdits& edits,
               Row& row) {
  if (sampling.edits_logits()) {
    edit_logits(x, row.count, sampling, edits, row.edited);
    x = row.edited;
    maximum = row_maximum(x, row.count);
    if (!std::isfinite(maximum.value)) return -1;
  }
  return sampling.temperature > 0 ? draw(x, maximum.value, sampling, row)
                                  : static_cast<int32_t>(maximum.index);
}

}  // namespace

void CpuBackend::do_sample(const Tensor& logits, int64_t vocab_size, const SamplingRow* rows,
                           const Tensor& ids, const Tensor& logprobs, const SamplingLists& lists) {
  const size_t thread_bytes = static_cast<size_t>(Row::bytes(vocab_size));
  char* memory = static_cast<char*>(sampling_.get(sampling_bytes(vocab_size), threads_));
  parallel_ranges(threads_, logits.rows, 2, [&](int thread, Range range) {
    Row row(memory + thread_bytes * static_cast<size_t>(thread), vocab_size);
    EditReader reader(rows, range.begin, lists);
    for (int64_t r = range.begin; r < range.end; ++r) {
      const RowEdits edits = reader.next();
      const float* x = logits.as<float>() + r * logits.row_stride;
      const RowMaximum maximum = row_maximum(x, vocab_size);
      int32_t& id = ids.as<int32_t>()[r];
      float& logprob = logprobs.as<float>()[r];
      id = -1;
      logprob = std::numeric_limits<float>::quiet_NaN();
      if (maximum.index < 0 || !std::isfinite(maximum.value)) continue;  // there is no softmax
      id = choose(x, maximum, rows[r], edits, row);
      if (id < 0) continue;
      logprob = log_probability(x, id, maximum.value, std::log(sum_exp(x, vocab_size, maximum.value)));
    }
  });
}

size_t CpuBackend::sampling_bytes(int64_t vocab_size) const {
  return static_cast<size_t>(Row::bytes(vocab_size)) * static_cast<size_t>(threads_);
}

}  // namespace trireme::cpu
