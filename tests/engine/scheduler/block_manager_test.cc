#include "engine/scheduler/block_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

namespace trireme {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Table = std::vector<int32_t>;
using Tokens = std::vector<int32_t>;

constexpr BlockManagerConfig kConfig{.num_blocks = 8, .block_size = 4, .num_states = 2};

Tokens count_from(int32_t first, int32_t num_tokens) {
  Tokens tokens(num_tokens);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

// A table for the tokens, with all full blocks published.
Table fill(BlockManager& manager, const Tokens& tokens, uint64_t salt = 0) {
  Table table;
  manager.open_table(tokens.data(), static_cast<int32_t>(tokens.size()), salt, 0, table);
  for (size_t i = 0; i < tokens.size() / 4; ++i)
    manager.publish(table, static_cast<int32_t>(i), salt, tokens.data() + 4 * i, /*replace=*/true);
  return table;
}

int32_t cached(BlockManager& manager, const Tokens& tokens, uint64_t salt = 0) {
  Table table;
  const auto num_cached =
      manager.open_table(tokens.data(), static_cast<int32_t>(tokens.size()), salt, 0, table);
  manager.release_table(table);
  return num_cached.value_or(-1);
}

void expect_sound(const BlockManager& manager, const std::vector<const Table*>& tables) {
  const absl::Status status = manager.check_integrity(tables, {});
  EXPECT_TRUE(status.ok()) << status;
}

TEST(BlockManagerTest, GivesEachBlockOnceAndThenNone) {
  BlockManager manager(kConfig);
  Table table;
  for (int i = 0; i < 8; ++i) table.push_back(manager.allocate());
  EXPECT_THAT(table, testing::UnorderedElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  EXPECT_EQ(manager.allocate(), kNoBlock);
  expect_sound(manager, {&table});
  manager.release_table(table);
  EXPECT_EQ(manager.num_free(), 8);
  expect_sound(manager, {});
}

TEST(BlockManagerTest, SharedBlockIsFreedWithItsLastReader) {
  BlockManager manager(kConfig);
  const Tokens tokens = count_from(0, 9);
  Table first = fill(manager, tokens);
  Table second = fill(manager, tokens);
  EXPECT_THAT(second, ElementsAre(first[0], first[1], testing::Ne(first[2])));
  EXPECT_EQ(manager.ref_count(first[0]), 2);
  EXPECT_EQ(manager.num_free(), 4);
  manager.release_table(first);
  EXPECT_EQ(manager.num_free(), 5);
  expect_sound(manager, {&second});
  manager.release_table(second);
  EXPECT_EQ(manager.num_free(), 8);
  EXPECT_EQ(manager.num_cached(), 2);
}

TEST(BlockManagerTest, OnlyFullBlocksAreSharedAndTheLastTokenIsLeftToCompute) {
  BlockManager manager(kConfig);
  Table table = fill(manager, count_from(0, 12));
  EXPECT_EQ(cached(manager, count_from(0, 12)), 8);
  EXPECT_EQ(cached(manager, count_from(0, 13)), 12);
  EXPECT_EQ(cached(manager, count_from(0, 11)), 8);
  EXPECT_EQ(cached(manager, count_from(0, 4)), 0);
  Tokens other = count_from(0, 13);
  other[5] = 99;
  EXPECT_EQ(cached(manager, other), 4);
}

TEST(BlockManagerTest, EqualTokensAfterAnotherPrefixAreAnotherBlock) {
  BlockManager manager(kConfig);
  Table table = fill(manager, count_from(0, 8));
  EXPECT_EQ(cached(manager, {4, 5, 6, 7, 8}), 0);
}

TEST(BlockManagerTest, SaltsDoNotShare) {
  BlockManager manager(kConfig);
  Table table = fill(manager, count_from(0, 8), /*salt=*/1);
  EXPECT_EQ(cached(manager, count_from(0, 9), 1), 8);
  EXPECT_EQ(cached(manager, count_from(0, 9), 2), 0);
}

TEST(BlockManagerTest, CollidingHashesNeverShare) {
  BlockManagerConfig config = kConfig;
  config.hash = [](uint64_t, const int32_t*, int32_t) -> uint64_t { return 42; };
  BlockManager manager(config);
  Table first = fill(manager, count_from(0, 8));
  Table second = fill(manager, count_from(100, 8));
  EXPECT_EQ(cached(manager, count_from(0, 9)), 8);
  EXPECT_EQ(cached(manager, count_from(100, 9)), 8);
  EXPECT_EQ(cached(manager, count_from(50, 9)), 0);
  // The second block of one, after the first block of the other.
  EXPECT_EQ(cached(manager, {0, 1, 2, 3, 104, 105, 106, 107, 108}), 4);
  EXPECT_EQ(cached(manager, count_from(0, 9), /*salt=*/1), 0);
}

TEST(BlockManagerTest, ChildIsNotFoundUnderALaterTenantOfItsParentsBlock) {
  BlockManagerConfig config = kConfig;
  config.hash = [](uint64_t, const int32_t*, int32_t) -> uint64_t { return 42; };
  BlockManager manager(config);
  Table table = fill(manager, count_from(0, 8));
  Table child = {table[1]};
  manager.forget({table[0]});
  Tokens other = {50, 51, 52, 53};
  Table parent = {table[0]};
  ASSERT_TRUE(manager.publish(parent, 0, 0, other.data(), true));  // as if the block had been given away
  EXPECT_EQ(cached(manager, {50, 51, 52, 53, 4, 5, 6, 7, 8}), 4);
}

TEST(BlockManagerTest, LeastRecentlyReleasedIsEvictedFirstAndLeavesBeforeParents) {
  BlockManager manager(kConfig);
  Table first = fill(manager, count_from(0, 12));     // 3 blocks
  Table second = fill(manager, count_from(100, 12));  // 3 blocks
  manager.release_table(first);
  manager.release_table(second);
  EXPECT_EQ(manager.num_cached(), 6);
  Table taken;
  for (int i = 0; i < 3; ++i) taken.push_back(manager.allocate());  // 2 empty ones, 1 cached
  EXPECT_EQ(cached(manager, count_from(100, 13)), 12);
  manager.release_table(taken);
  for (int i = 0; i < 4; ++i) taken.push_back(manager.allocate());
  expect_sound(manager, {&taken});
  manager.release_table(taken);
  EXPECT_EQ(cached(manager, count_from(100, 13)), 12);
  EXPECT_EQ(cached(manager, count_from(0, 13)), 4);
}

TEST(BlockManagerTest, UseMakesAPrefixRecent) {
  BlockManager manager(kConfig);
  Table first = fill(manager, count_from(0, 12));
  Table second = fill(manager, count_from(100, 12));
  manager.release_table(first);
  manager.release_table(second);
  EXPECT_EQ(cached(manager, count_from(0, 13)), 12);
  Table taken;
  for (int i = 0; i < 5; ++i) taken.push_back(manager.allocate());
  manager.release_table(taken);
  EXPECT_EQ(cached(manager, count_from(0, 13)), 12);
  EXPECT_EQ(cached(manager, count_from(100, 13)), 0);
}

TEST(BlockManagerTest, ATableThatDoesNotFitChangesNothing) {
  BlockManager manager(kConfig);
  Table first = fill(manager, count_from(0, 20));  // 5 blocks
  Table table;
  const Tokens tokens = count_from(100, 12);
  EXPECT_FALSE(manager.open_table(tokens.data(), 12, 0, /*num_spare=*/1, table).has_value());
  EXPECT_TRUE(table.empty());
  EXPECT_EQ(manager.num_free(), 3);
  EXPECT_TRUE(manager.open_table(tokens.data(), 12, 0, /*num_spare=*/0, table).has_value());
  expect_sound(manager, {&first, &table});
}

TEST(BlockManagerTest, SharedFreeBlocksCountAsTaken) {
  BlockManager manager(kConfig);
  Table first = fill(manager, count_from(0, 16));
  manager.release_table(first);
  Table rest;
  for (int i = 0; i < 4; ++i) rest.push_back(manager.allocate());
  // 4 free blocks, all of this very prefix: the fifth cannot be had.
  EXPECT_EQ(cached(manager, count_from(0, 17)), -1);
  EXPECT_EQ(cached(manager, count_from(0, 16)), 12);
  expect_sound(manager, {&rest});
}

TEST(BlockManagerTest, EqualBlockIsReplacedByTheCachedOne) {
  BlockManager manager(kConfig);
  const Tokens tokens = count_from(0, 8);
  Table first, second;
  manager.open_table(tokens.data(), 8, 0, 0, first);
  manager.open_table(tokens.data(), 8, 0, 0, second);
  ASSERT_TRUE(manager.publish(first, 0, 0, tokens.data(), true));
  EXPECT_FALSE(manager.publish(second, 0, 0, tokens.data(), /*replace=*/false));
  EXPECT_NE(second[0], first[0]);
  EXPECT_FALSE(manager.publish(second, 1, 0, tokens.data() + 4, true));  // its parent is not in
  EXPECT_TRUE(manager.publish(second, 0, 0, tokens.data(), true));
  EXPECT_EQ(second[0], first[0]);
  EXPECT_EQ(manager.num_free(), 5);
  expect_sound(manager, {&first, &second});
}

TEST(BlockManagerTest, BlockIsNotPublishedTwiceWhenItsParentWasForgotten) {
  BlockManager manager(kConfig);
  const Tokens tokens = count_from(0, 8);
  Table first;
  manager.open_table(tokens.data(), 8, 0, 0, first);
  for (int32_t i : {0, 1}) ASSERT_TRUE(manager.publish(first, i, 0, tokens.data() + 4 * i, true));
  manager.forget({first[0]});
  EXPECT_TRUE(manager.publish(first, 0, 0, tokens.data(), true));
  EXPECT_FALSE(manager.publish(first, 1, 0, tokens.data() + 4, true));
  EXPECT_EQ(cached(manager, count_from(0, 9)), 4);
  expect_sound(manager, {&first});
}

TEST(BlockManagerTest, ForgottenBlocksAreNotFoundAgain) {
  BlockManager manager(kConfig);
  Table table = fill(manager, count_from(0, 8));
  manager.forget(table);
  EXPECT_EQ(cached(manager, count_from(0, 9)), 0);
  manager.release_table(table);
  EXPECT_EQ(manager.num_cached(), 0);
  expect_sound(manager, {});
}

TEST(BlockManagerTest, WithoutTheCacheABlockIsSharedAsLongAsItIsHeld) {
  BlockManagerConfig config = kConfig;
  config.enable_prefix_cache = false;
  BlockManager manager(config);
  Table first = fill(manager, count_from(0, 8));
  Table second;
  const Tokens tokens = count_from(0, 9);
  EXPECT_EQ(manager.open_table(tokens.data(), 9, 0, 0, second), 8);
  EXPECT_EQ(second[1], first[1]);
  manager.release_table(first);
  expect_sound(manager, {&second});
  manager.release_table(second);
  EXPECT_EQ(manager.num_cached(), 0);
  EXPECT_EQ(cached(manager, tokens), 0);
  expect_sound(manager, {});
}

TEST(PrefixIndexTest, ParentThatIsNotInHasNoChildren) {
  PrefixIndex index(2, 1);
  const int32_t token = 5;
  index.insert(0, kNoBlock, 0, &token);
  EXPECT_EQ(index.find(kNoBlock, 0, &token), 0);
  EXPECT_EQ(index.find(1, 0, &token), kNoBlock);
  EXPECT_TRUE(index.check_integrity().ok());
}

TEST(BlockManagerTest, StatesAreCountedLikeBlocks) {
  BlockManager manager(kConfig);
  const int32_t a = manager.allocate_state(), b = manager.allocate_state();
  EXPECT_NE(a, b);
  EXPECT_EQ(manager.allocate_state(), -1);
  EXPECT_TRUE(manager.check_integrity({}, {a, b}).ok());
  EXPECT_THAT(manager.check_integrity({}, {a}).message(), HasSubstr("held 0 times"));
  manager.release_state(a);
  EXPECT_THAT(manager.check_integrity({}, {a, b}).message(), HasSubstr("held 2 times"));
  EXPECT_EQ(manager.num_free_states(), 1);
}

TEST(BlockManagerTest, LeaksAndDoubleOwnersAreNamed) {
  BlockManager manager(kConfig);
  const Table table = {manager.allocate()};
  EXPECT_THAT(manager.check_integrity({}, {}).message(), HasSubstr("counts 1 references, its tables are 0"));
  EXPECT_THAT(manager.check_integrity({&table, &table}, {}).message(), HasSubstr("its tables are 2"));
  const Table wrong = {8};
  EXPECT_THAT(manager.check_integrity({&wrong}, {}).message(), HasSubstr("names block 8"));
}

}  // namespace
}  // namespace trireme
