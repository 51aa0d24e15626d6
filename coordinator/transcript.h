#pragma once
// What a relay has passed on to its client: the one place that knows it.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace trireme {

class Transcript {
 public:
  struct Sample {
    std::vector<int32_t> token_ids;
    bool finished = false;
  };

  explicit Transcript(int num_samples) : samples_(static_cast<size_t>(num_samples)) {}

  /// What a sample had before this relay: the request came with it.
  bool begin_with(int index, const int32_t* begin, int count, bool finished) {
    if (!append(index, begin, count, finished)) return false;
    num_tokens_ -= count;
    return true;
  }

  /// A sample's next tokens, [begin, begin + count). False, and nothing is taken, when there is no such
  /// sample or it was finished before.
  bool append(int index, const int32_t* begin, int count, bool finished) {
    if (index < 0 || index >= static_cast<int>(samples_.size())) return false;
    Sample& sample = samples_[static_cast<size_t>(index)];
    if (sample.finished) return false;
    sample.token_ids.insert(sample.token_ids.end(), begin, begin + count);
    sample.finished = finished;
    num_tokens_ += count;
    return true;
  }

  /// Of all samples, without what they began with.
  int64_t num_tokens() const { return num_tokens_; }
  const std::vector<Sample>& samples() const { return samples_; }

 private:
  std::vector<Sample> samples_;
  int64_t num_tokens_ = 0;
};

}  // namespace trireme
