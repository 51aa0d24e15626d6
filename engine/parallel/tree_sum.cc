#include "engine/parallel/tree_sum.h"

#include <cstddef>

namespace trireme {
namespace {

void add(float* sum, const float* other, int64_t count) {
  for (int64_t i = 0; i < count; ++i) sum[i] += other[i];
}

}  // namespace

TreeSum::TreeSum(int rank, int size, PeerTransport& transport)
    : rank_(rank), size_(size), transport_(transport) {
  while (tree_size_ * 2 <= size_) tree_size_ *= 2;
}

void TreeSum::sum(float* data, int64_t count) {
  if (static_cast<int64_t>(scratch_.size()) < count) scratch_.resize(static_cast<std::size_t>(count));
  if (rank_ >= tree_size_) {
    transport_.send(data, count, rank_ - tree_size_);
    transport_.receive(data, count, rank_ - tree_size_);
    return;
  }
  const bool has_extra = rank_ + tree_size_ < size_;
  if (has_extra) {
    transport_.receive(scratch_.data(), count, rank_ + tree_size_);
    add(data, scratch_.data(), count);
  }
  if (count <= kSmallCount) {
    exchange_everything(data, count);
  } else {
    exchange_halves(data, count);
  }
  if (has_extra) transport_.send(data, count, rank_ + tree_size_);
}

void TreeSum::exchange_everything(float* data, int64_t count) {
  for (int distance = 1; distance < tree_size_; distance *= 2) {
    transport_.exchange(data, count, scratch_.data(), count, rank_ ^ distance);
    add(data, scratch_.data(), count);
  }
}

// Reduce-scatter, then all-gather: each level sums half of what the level before was responsible for. Element
// by element the additions are those of exchange_everything, so the bits do not depend on the size.
void TreeSum::exchange_halves(float* data, int64_t count) {
  int64_t begin = 0, end = count;
  for (int distance = 1; distance < tree_size_; distance *= 2) {
    const int64_t middle = begin + (end - begin) / 2;
    const bool keeps_lower = (rank_ & distance) == 0;
    const int64_t keep_begin = keeps_lower ? begin : middle, keep_end = keeps_lower ? middle : end;
    const int64_t give_begin = keeps_lower ? middle : begin, give_end = keeps_lower ? end : middle;
    transport_.exchange(data + give_begin, give_end - give_begin, scratch_.data(), keep_end - keep_begin,
                        rank_ ^ distance);
    add(data + keep_begin, scratch_.data(), keep_end - keep_begin);
    bounds_.push_back({begin, end});
    begin = keep_begin;
    end = keep_end;
  }
  for (int distance = tree_size_ / 2; distance >= 1; distance /= 2) {
    const auto [outer_begin, outer_end] = bounds_.back();
    bounds_.pop_back();
    const bool has_lower = begin == outer_begin;
    const int64_t their_begin = has_lower ? end : outer_begin, their_end = has_lower ? outer_end : begin;
    transport_.exchange(data + begin, end - begin, data + their_begin, their_end - their_begin,
                        rank_ ^ distance);
    begin = outer_begin;
    end = outer_end;
  }
}

}  // namespace trireme
