#pragma once
// The memory in which a thread works on a row of logits.

#include <cstdint>
#include <type_traits>

#include "kernels/cpu/round_up.h"
#include "kernels/cpu/softmax_row.h"

namespace trireme::cpu {

struct Candidate {
  float weight;  // by which candidates are ordered: a probability's, or the logit
  int32_t id;
};
inline bool before(const Candidate& a, const Candidate& b) {
  return a.weight > b.weight || (a.weight == b.weight && a.id < b.id);
}

/// A histogram of weights in (0, 1]: equal exponent and equal first 6 bits of the fraction share a bucket.
inline constexpr int kBuckets = (0x3f800000 >> 17) + 1;

struct RowScratch {
  int64_t count;
  double total;           // of all weights
  float* weights;         // [count]
  Run* runs;              // [num_runs(count)]
  Candidate* candidates;  // [count]
  double* histogram;      // [kBuckets]
  float* edited;          // [count]: logits with biases, penalties and bans

  RowScratch(char* memory, int64_t vocab_size) : count(vocab_size), total(0) {
    auto take = [&](int64_t elements, auto** pointer) {
      *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(memory);
      memory += round_up(elements * static_cast<int64_t>(sizeof(**pointer)), 64);
    };
    take(count, &weights);
    take(num_runs(count), &runs);
    take(count, &candidates);
    take(kBuckets, &histogram);
    take(count, &edited);
  }
  static int64_t bytes(int64_t vocab_size) {
    return 2 * round_up(vocab_size * 4, 64) +
           round_up(num_runs(vocab_size) * static_cast<int64_t>(sizeof(Run)), 64) +
           round_up(vocab_size * static_cast<int64_t>(sizeof(Candidate)), 64) + round_up(kBuckets * 8, 64);
  }
};

}  // namespace trireme::cpu
