#include "engine/runner/trace_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/testing/trace_check.h"

namespace trireme {
namespace {

using testing::check_trace;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TimelineRecord record(Phase phase, int64_t begin, int64_t end) {
  return {begin, end, 7, 0, -1, phase, CollectiveKind::none};
}
TimelineRecord sum(uint32_t number, int64_t begin, int64_t end) {
  return {begin, end, 7, number, 3, Phase::collective, CollectiveKind::all_reduce};
}

/// Records are made at their ends: the step comes last.
std::vector<RankTimeline> two_ranks() {
  return {{"here",
           {},
           {record(Phase::compute, 1'000'000, 1'050'000), sum(1, 1'050'100, 1'200'000),
            record(Phase::finish, 1'200'100, 1'300'000), record(Phase::none, 999'900, 1'300'001)},
           {}},
          {"there",
           {5'000'000'000, 250},
           {record(Phase::compute, 5'001'000'000, 5'001'150'000), sum(1, 5'001'150'000, 5'001'199'000),
            record(Phase::none, 5'000'999'999, 5'001'199'001)},
           {}}};
}

TEST(TraceFileTest, RanksShareOneTimeAxis) {
  const std::string text = chrome_trace({4, "job-r4"}, two_ranks());
  const auto summary = check_trace(text);
  EXPECT_THAT(summary.error, IsEmpty());
  ASSERT_EQ(summary.events.size(), 2u);
  EXPECT_EQ(summary.events.at({4, 1}).at("collective all_reduce"), 1);
  EXPECT_THAT(text, HasSubstr("\"replica job-r4\""));
  EXPECT_THAT(text, HasSubstr("\"host\":\"there\",\"clock_offset_ns\":5000000000,\"clock_error_ns\":250"));
  // Rank 0 arrived 1,050.1 us after the clock's zero and rank 1, whose clock is 5 s ahead, at 1,150.
  EXPECT_THAT(text,
              HasSubstr("{\"name\":\"waiting\",\"cat\":\"wait\",\"ph\":\"X\",\"ts\":1050.100,\"dur\":99.900,"
                        "\"pid\":4,\"tid\":0,\"args\":{\"step\":7,\"collective\":1,\"layer\":3}}"));
  EXPECT_THAT(
      text,
      HasSubstr("{\"name\":\"transfer\",\"cat\":\"wait\",\"ph\":\"X\",\"ts\":1150.000,\"dur\":50.000,"));
  EXPECT_THAT(
      text, HasSubstr("{\"name\":\"waiting\",\"cat\":\"wait\",\"ph\":\"X\",\"ts\":1150.000,\"dur\":0.000,"));
}

TEST(TraceFileTest, DevicesHaveTracksOfTheirOwn) {
  auto ranks = two_ranks();
  ranks[0].device_records = {record(Phase::compute, 1'020'000, 1'100'000), sum(2, 1'100'000, 1'250'000),
                             record(Phase::none, 1'020'000, 1'250'000)};
  ranks[1].device_records = {record(Phase::compute, 5'001'020'000, 5'001'230'000),
                             sum(2, 5'001'230'000, 5'001'251'000),
                             record(Phase::none, 5'001'020'000, 5'001'251'000)};
  const std::string text = chrome_trace({4, "job-r4"}, ranks);
  const auto summary = check_trace(text);
  EXPECT_THAT(summary.error, IsEmpty());
  ASSERT_EQ(summary.events.size(), 4u);
  EXPECT_EQ(summary.events.at({4, 1}).at("collective all_reduce"), 1);
  EXPECT_EQ(summary.events.at({4, 3}).at("collective all_reduce"), 1);
  EXPECT_THAT(text, HasSubstr("\"rank 0's device, steps with marks\""));
  EXPECT_THAT(text, HasSubstr("{\"name\":\"waiting\",\"cat\":\"wait\",\"ph\":\"X\",\"ts\":1100.000,"
                              "\"dur\":130.000,\"pid\":4,\"tid\":2,"));
}

TEST(TraceFileTest, TheCheckFindsWhatIsWrong) {
  auto ranks = two_ranks();
  ranks[0].records[0].end_ns += 200;
  EXPECT_THAT(check_trace(chrome_trace({0, "r"}, ranks)).error, HasSubstr("crosses the end"));
  ranks = two_ranks();
  ranks[0].records[2].begin_ns = 1'010'000;
  ranks[0].records[2].end_ns = 1'020'000;
  EXPECT_THAT(check_trace(chrome_trace({0, "r"}, ranks)).error, HasSubstr("overlaps its like"));
  EXPECT_THAT(check_trace("[]").error, HasSubstr("no JSON object"));
}

TEST(TraceFileTest, NamesAreQuoted) {
  const std::string text = chrome_trace({0, "a\"b\\\x01\xff"}, {{"h\"", {}, {}, {}}});
  EXPECT_THAT(check_trace(text).error, IsEmpty());
}

TEST(TraceFileTest, AWholeFileReplacesTheLastOne) {
  const std::filesystem::path folder = ::testing::TempDir() + "trace_" + std::to_string(::getpid());
  std::filesystem::create_directory(folder);
  const std::filesystem::path path = folder / "trace.json";
  const auto read = [&path] {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  };
  for (const char* id : {"first", "second"}) {
    ASSERT_TRUE(write_trace(path, {0, id}, two_ranks()).ok());
    EXPECT_EQ(read(), chrome_trace({0, id}, two_ranks()));
  }
  // Nothing half written beside it; and where nothing can be written, the last one stays.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  std::filesystem::create_directory(path.string() + ".partial");
  EXPECT_FALSE(write_trace(path, {0, "third"}, two_ranks()).ok());
  EXPECT_EQ(read(), chrome_trace({0, "second"}, two_ranks()));
  std::filesystem::remove_all(folder);
}

TEST(TraceFileTest, AFileThatCannotBeWrittenIsNamed) {
  const absl::Status status = write_trace("/nowhere/trace.json", {0, "r"}, {});
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/trace.json"));
}

}  // namespace
}  // namespace trireme
