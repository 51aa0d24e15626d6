// Sums over ranks that are threads of this process.
#include "engine/parallel/tree_sum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <thread>

namespace trireme {
namespace {

/// Messages in order for each pair of ranks.
class Mailboxes {
 public:
  void put(int from, int to, std::vector<float> message) {
    const std::lock_guard lock(mutex_);
    boxes_[{from, to}].push_back(std::move(message));
    changed_.notify_all();
  }
  std::vector<float> take(int from, int to) {
    std::unique_lock lock(mutex_);
    auto& box = boxes_[{from, to}];
    if (!changed_.wait_for(lock, std::chrono::seconds(60), [&] { return !box.empty(); })) return {};
    std::vector<float> message = std::move(box.front());
    box.pop_front();
    return message;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<int, int>, std::deque<std::vector<float>>> boxes_;
};

class ThreadTransport final : public PeerTransport {
 public:
  ThreadTransport(int rank, Mailboxes& boxes) : rank_(rank), boxes_(boxes) {}
  void send(const float* data, int64_t count, int peer) override {
    boxes_.put(rank_, peer, std::vector<float>(data, data + count));
    floats_sent_ += count;
  }
  void receive(float* data, int64_t count, int peer) override {
    const std::vector<float> message = boxes_.take(peer, rank_);
    ASSERT_EQ(static_cast<int64_t>(message.size()), count) << "from " << peer << " to " << rank_;
    std::copy(message.begin(), message.end(), data);
  }
  void exchange(const float* mine, int64_t mine_count, float* theirs, int64_t their_count,
                int peer) override {
    send(mine, mine_count, peer);
    receive(theirs, their_count, peer);
  }
  int64_t floats_sent() const { return floats_sent_; }

 private:
  int rank_;
  Mailboxes& boxes_;
  int64_t floats_sent_ = 0;
};

std::vector<float> contribution(int rank, int64_t count) {
  std::mt19937 random(1234 + static_cast<unsigned>(rank));
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = normal(random);
  return values;
}

struct Summed {
  std::vector<std::vector<float>> of_rank;
  int64_t most_sent = 0;  // floats, by one rank
};

/// Sums of several lengths, one after the other by the same objects.
std::vector<Summed> sum_all(int size, const std::vector<int64_t>& counts) {
  Mailboxes boxes;
  std::vector<Summed> sums(counts.size());
  for (Summed& sum : sums) sum.of_rank.resize(static_cast<size_t>(size));
  std::mutex mutex;
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < size; ++rank) {
    ranks.emplace_back([&, rank] {
      ThreadTransport transport(rank, boxes);
      TreeSum tree(rank, size, transport);
      for (size_t i = 0; i < counts.size(); ++i) {
        const int64_t before = transport.floats_sent();
        std::vector<float> data = contribution(rank, counts[i]);
        tree.sum(data.data(), counts[i]);
        const std::lock_guard lock(mutex);
        sums[i].of_rank[static_cast<size_t>(rank)] = std::move(data);
        sums[i].most_sent = std::max(sums[i].most_sent, transport.floats_sent() - before);
      }
    });
  }
  for (std::thread& rank : ranks) rank.join();
  return sums;
}

/// The tree written down: what ranks beyond a power of two have goes to the first ones, then neighbours at
/// distance 1, 2, 4 ... are added.
std::vector<float> expected_sum(int size, int64_t count) {
  std::vector<std::vector<float>> parts;
  for (int rank = 0; rank < size; ++rank) parts.push_back(contribution(rank, count));
  const auto add = [&](size_t to, size_t from) {
    for (size_t i = 0; i < parts[to].size(); ++i) parts[to][i] += parts[from][i];
  };
  size_t tree = 1;
  while (tree * 2 <= parts.size()) tree *= 2;
  for (size_t rank = tree; rank < parts.size(); ++rank) add(rank - tree, rank);
  for (size_t distance = 1; distance < tree; distance *= 2) {
    for (size_t rank = 0; rank < tree; rank += 2 * distance) add(rank, rank + distance);
  }
  return parts[0];
}

class TreeSumTest : public ::testing::TestWithParam<int> {};

TEST_P(TreeSumTest, EveryRankHasTheBitsOfTheTreeWhateverTheLength) {
  const int size = GetParam();
  // Around the change of algorithm, and what halves badly; a long sum first, a short one in its scratch.
  const std::vector<int64_t> counts = {TreeSum::kSmallCount + 1, 1,    0,
                                       TreeSum::kSmallCount,     4097, 2 * TreeSum::kSmallCount + 13};
  const std::vector<Summed> sums = sum_all(size, counts);
  for (size_t i = 0; i < counts.size(); ++i) {
    const std::vector<float> expected = expected_sum(size, counts[i]);
    for (int rank = 0; rank < size; ++rank) {
      const std::vector<float>& sum = sums[i].of_rank[static_cast<size_t>(rank)];
      ASSERT_EQ(sum.size(), expected.size());
      EXPECT_TRUE(expected.empty() ||
                  std::memcmp(sum.data(), expected.data(), sum.size() * sizeof(float)) == 0)
          << counts[i] << " floats on rank " << rank << " of " << size;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, TreeSumTest, ::testing::Values(1, 2, 3, 4, 5, 7, 8));

TEST(TreeSumVolumeTest, LongSumsSendNoMoreThanTwiceTheDataWhereShortOnesSendItOncePerLevel) {
  const int64_t large = 8 * TreeSum::kSmallCount;
  const std::vector<Summed> sums = sum_all(8, {1000, large});
  EXPECT_EQ(sums[0].most_sent, 3 * 1000);
  EXPECT_EQ(sums[1].most_sent, 2 * (large / 2 + large / 4 + large / 8));
}

}  // namespace
}  // namespace trireme
