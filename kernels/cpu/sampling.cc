// Drawing tokens. Candidates are ordered by falling probability, equal ones by rising id; top-k and top-p
// each keep a prefix of that order, found by partial selection instead of a sort of the vocabulary.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/philox.h"
#include "kernels/cpu/round_up.h"
#include "kernels/cpu/softmax_row.h"

namespace trireme::cpu {
namespace {

struct Candidate {
  float weight;  // exp((logit - maximum) / temperature)
  int32_t id;
};
bool before(const Candidate& a, const Candidate& b) {
  return a.weight > b.weight || (a.weight == b.weight && a.id < b.id);
}
constexpr Candidate kKeepAll = {-1, std::numeric_limits<int32_t>::max()};

/// What one thread needs for a row.
struct Scratch {
  float* weights;         // [vocab_size]
  Candidate* candidates;  // [vocab_size]
};

int64_t collect(const float* weights, int64_t count, float at_least, Candidate* candidates) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; ++i) {
    candidates[found] = {weights[i], static_cast<int32_t>(i)};
    found += weights[i] >= at_least ? 1 : 0;
  }
  return found;
}

/// The last candidate of the k first.
Candidate last_of_top_k(const float* weights, int64_t count, int64_t k, Candidate* candidates) {
  // The k-th largest of the maxima of short runs is a lower bound of the k-th largest weight.
  constexpr int64_t kRun = 64;
  const int64_t runs = (count + kRun - 1) / kRun;
  float at_least = 0;
  if (k < runs) {
    for (int64_t r = 0; r < runs; ++r) {
      const int64_t end = std::min(count, (r + 1) * kRun);
      candidates[r] = {*std::max_element(weights + r * kRun, weights + end), static_cast<int32_t>(r)};
    }
    std::nth_element(candidates, candidates + k - 1, candidates + runs, before);
    at_least = candidates[k - 1].weight;
  }
  const int64_t found = collect(weights, count, at_least, candidates);
  std::nth_element(candidates, candidates + k - 1, candidates + found, before);
  return candidates[k - 1];
}

/// The last candidate of the shortest prefix whose weights reach `mass`.
Candidate last_of_mass(const float* weights, int64_t count, double mass, double total,
                       Candidate* candidates) {
  // Weights below this cannot be needed: all of them together are less than half of what may be left out.
  const float at_least = static_cast<float>(0.5 * (total - mass) / static_cast<double>(count));
  Candidate* begin = candidates;
  Candidate* end = candidates + collect(weights, count, at_least, candidates);
  while (end - begin > 1) {
    Candidate* middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, before);
    double upper = 0;
    for (const Candidate* c = begin; c < middle; ++c) upper += c->weight;
    if (upper >= mass) {
      end = middle;
    } else {
      mass -= upper;
      begin = middle;
    }
  }
  return *begin;
}

/// The id at which the cumulative weight of the kept candidates, in order of id, passes u of their sum.
int32_t invert(const float* weights, int64_t count, Candidate last, float at_least, double u) {
  auto kept = [&](int64_t i) {
    return weights[i] >= at_least && !before(last, {weights[i], static_cast<int32_t>(i)});
  };
  double mass = 0;
  for (int64_t i = 0; i < count; ++i) mass += kept(i) ? weights[i] : 0.0f;
  const double target = u * mass;
  double sum = 0;
  int32_t id = -1;
  for (int64_t i = 0; i < count; ++i) {
    if (!kept(i) || weights[i] == 0) continue;
    sum += weights[i];
    id = static_cast<int32_t>(i);
    if (sum > target) break;
  }
  return id;
}

int32_t draw(const float* logits, int64_t vocab_size, float maximum, const SamplingRow& row,
             const Scratch& scratch) {
  const double total = exp_weights(logits, vocab_size, maximum, 1.0f / row.temperature, scratch.weights);
  Candidate last = kKeepAll;
  if (row.top_k > 0 && row.top_k < vocab_size)
    last = last_of_top_k(scratch.weights, vocab_size, row.top_k, scratch.candidates);
  if (row.top_p < 1) {
    const double mass = std::max(0.0, static_cast<double>(row.top_p) * total);
    const Candidate other = last_of_mass(scratch.weights, vocab_size, mass, total, scratch.candidates);
    if (before(other, last)) last = other;
  }
  const double u = sampling_uniform(row.seed, row.sample_index, row.output_index);
  return invert(scratch.weights, vocab_size, last, row.min_p, u);  // the largest weight is 1
}

}  // namespace

void CpuBackend::do_sample(const Tensor& logits, int64_t vocab_size, const SamplingRow* rows,
                           const Tensor& ids, const Tensor& logprobs) {
  const size_t thread_bytes =
      static_cast<size_t>(round_up(vocab_size, 16)) * (sizeof(float) + sizeof(Candidate));
  char* memory = static_cast<char*>(sampling_.get(thread_bytes * static_cast<size_t>(threads_), threads_));
  parallel_ranges(threads_, logits.rows, 2, [&](int thread, Range range) {
    char* mine = memory + thread_bytes * static_cast<size_t>(thread);
    const Scratch scratch{reinterpret_cast<float*>(mine),
                          reinterpret_cast<Candidate*>(mine + round_up(vocab_size, 16) * 4)};
    for (int64_t r = range.begin; r < range.end; ++r) {
      const float* row = logits.as<float>() + r * logits.row_stride;
      const RowMaximum maximum = row_maximum(row, vocab_size);
      int32_t& id = ids.as<int32_t>()[r];
      float& logprob = logprobs.as<float>()[r];
      id = -1;
      logprob = std::numeric_limits<float>::quiet_NaN();
      if (maximum.index < 0 || !std::isfinite(maximum.value)) continue;  // there is no softmax
      id = rows[r].temperature > 0 ? draw(row, vocab_size, maximum.value, rows[r], scratch)
                                   : static_cast<int32_t>(maximum.index);
      const double sum = exp_weights(row, vocab_size, maximum.value, 1.0f, nullptr);
      logprob = static_cast<float>(static_cast<double>(row[id]) - maximum.value - std::log(sum));
    }
  });
}

}  // namespace trireme::cpu
