#pragma once
// Sums over ranks in a tree fixed by the ranks: the same bits on every rank, for any size of the message and
// any transport, which a library's own all-reduce does not promise.

#include <cstdint>
#include <utility>
#include <vector>

namespace trireme {

/// What a sum needs of a transport: floats to and from one peer. Each call returns when it is done, in order
/// for a pair of ranks.
class PeerTransport {
 public:
  virtual ~PeerTransport() = default;
  virtual void send(const float* data, int64_t count, int peer) = 0;
  virtual void receive(float* data, int64_t count, int peer) = 0;
  /// Sends to and receives from `peer` at once, where the same call is made.
  virtual void exchange(const float* mine, int64_t mine_count, float* theirs, int64_t their_count,
                        int peer) = 0;
};

/// The part of one rank of `size`. Its scratch grows to the largest sum and stays.
class TreeSum {
 public:
  /// Up to so many floats are exchanged whole on each level: that beats two exchanges of halves.
  static constexpr int64_t kSmallCount = 16 * 1024;

  /// `transport` must outlive it.
  TreeSum(int rank, int size, PeerTransport& transport);
  /// data[i] = sum over the ranks, each of which calls this with the same count.
  ///
  /// Ranks beyond the largest power of two first give their part to rank - tree_size; then partners at
  /// distance 1, 2, 4 ... add to each other. a + b and b + a are the same bits, so every rank ends with the
  /// same sum.
  void sum(float* data, int64_t count);

 private:
  void exchange_everything(float* data, int64_t count);
  void exchange_halves(float* data, int64_t count);

  int rank_, size_;
  int tree_size_ = 1;  // largest power of two that is not above size_
  PeerTransport& transport_;
  std::vector<float> scratch_;
  std::vector<std::pair<int64_t, int64_t>> bounds_;  // of the levels of exchange_halves
};

}  // namespace trireme
