#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/client/collective_bench.h"

namespace trireme::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string complaint(const std::string& text) {
  const auto sizes = parse_sizes(text);
  return sizes.ok() ? "" : std::string(sizes.status().message());
}

TEST(CollectiveSizesTest, RangesAndSizesAreMergedInOrder) {
  EXPECT_THAT(*parse_sizes("512"), ElementsAre(512));
  EXPECT_THAT(*parse_sizes("4KiB:64KiB:x4"), ElementsAre(4096, 16384, 65536));
  EXPECT_THAT(*parse_sizes("1MiB,4KiB:20KiB:x2,8KiB,16B"), ElementsAre(16, 4096, 8192, 16384, 1 << 20));
  EXPECT_THAT(*parse_sizes("1GiB:1GiB:x2"), ElementsAre(1 << 30));
}

TEST(CollectiveSizesTest, WhatIsWrongIsSaidWithItsPlace) {
  EXPECT_THAT(complaint(""), HasSubstr("got ''"));
  EXPECT_THAT(complaint("4KiB,"), HasSubstr("got ''"));
  EXPECT_THAT(complaint("4kb"), HasSubstr("got '4kb', wanted a number of bytes"));
  EXPECT_THAT(complaint("-4"), HasSubstr("got '-4'"));
  EXPECT_THAT(complaint("99999999999999999999"), HasSubstr("wanted a number of bytes"));
  EXPECT_THAT(complaint("9223372036854775807GiB"), HasSubstr("4 bytes to 1GiB"));
  EXPECT_THAT(complaint("2GiB"), HasSubstr("4 bytes to 1GiB"));
  EXPECT_THAT(complaint("0"), HasSubstr("4 bytes to 1GiB"));
  EXPECT_THAT(complaint("6"), HasSubstr("a multiple of the 4 bytes"));
  EXPECT_THAT(complaint("4KiB:8KiB"), HasSubstr("FROM:TO:xFACTOR"));
  EXPECT_THAT(complaint("4KiB:8KiB:2"), HasSubstr("got '2', wanted a factor"));
  EXPECT_THAT(complaint("4KiB:8KiB:x1"), HasSubstr("wanted a factor"));
  EXPECT_THAT(complaint("8KiB:4KiB:x2"), HasSubstr("at or above its beginning"));
}

TEST(CollectiveSizesTest, MoreSizesThanAnyoneReadsAreRefused) {
  std::string many = "4";
  for (int i = 2; i <= 65; ++i) many.append(",").append(std::to_string(4 * i));
  EXPECT_THAT(complaint(many), HasSubstr("got 65 sizes, wanted at most 64"));
}

TEST(CollectiveSizesTest, BusBandwidthCountsWhatCrossesALink) {
  EXPECT_EQ(busbw_factor(CollectiveOp::all_reduce, 1), 0);
  EXPECT_EQ(busbw_factor(CollectiveOp::all_reduce, 2), 1);
  EXPECT_EQ(busbw_factor(CollectiveOp::all_reduce, 8), 1.75);
  EXPECT_EQ(busbw_factor(CollectiveOp::gather, 8), 0.875);
  EXPECT_EQ(busbw_factor(CollectiveOp::broadcast, 8), 1);
}

TEST(CollectiveSizesTest, NamesAreReadAsTheyAreWritten) {
  for (const CollectiveOp op : {CollectiveOp::all_reduce, CollectiveOp::gather, CollectiveOp::broadcast})
    EXPECT_EQ(parse_collective(collective_name(op)), op);
  EXPECT_EQ(parse_collective("all_gather"), std::nullopt);
}

}  // namespace
}  // namespace trireme::client
