#include "launch/client/status_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace trireme::client {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::Not;

v1::GetClusterResponse cluster_of_one(int64_t output_tokens, const std::string& incarnation = "first") {
  v1::GetClusterResponse cluster;
  cluster.set_model("demo");
  cluster.set_requests_total(12);
  cluster.set_requests_rejected(3);
  v1::ReplicaStatus* replica = cluster.add_replicas();
  replica->set_replica_id("job-0");
  replica->set_incarnation(incarnation);
  replica->set_state(v1::REPLICA_STATE_SERVING);
  v1::ReplicaLoad* load = replica->mutable_load();
  load->set_output_tokens(output_tokens);
  load->set_running_requests(5);
  load->set_waiting_requests(2);
  load->set_kv_blocks_total(200);
  load->set_kv_blocks_free(150);
  load->set_prompt_tokens(400);
  load->set_cached_prompt_tokens(100);
  load->set_preemptions(7);
  load->set_resumed_requests(1);
  return cluster;
}

TEST(StatusViewTest, ShowsLoadSharesAndRates) {
  StatusView view;
  const auto begin = StatusView::Clock::now();
  EXPECT_THAT(view.frame("host:1", cluster_of_one(100), begin)[1], HasSubstr("- tokens/s"));
  const auto lines = view.frame("host:1", cluster_of_one(160), begin + seconds(2));
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_THAT(lines[0], HasSubstr("model demo"));
  EXPECT_THAT(lines[1], HasSubstr("12 requests"));
  EXPECT_THAT(lines[1], HasSubstr("3 rejected"));
  EXPECT_THAT(lines[1], HasSubstr("30.0 tokens/s"));
  for (const char* part : {"job-0", "SERVING", "   5     2", "[#####...............]  25%", "30.0", "25%"})
    EXPECT_THAT(lines[3], HasSubstr(part));
  EXPECT_EQ(lines[2].size(), lines[3].size()) << lines[2] << "\n" << lines[3];
}

TEST(StatusViewTest, ReplicaThatStartedAnewHasNoRateYet) {
  StatusView view;
  const auto begin = StatusView::Clock::now();
  view.lines("host:1", cluster_of_one(1000), begin);
  EXPECT_THAT(view.lines("host:1", cluster_of_one(10, "second"), begin + seconds(1))[1],
              HasSubstr("- tokens/s"));
  EXPECT_THAT(view.lines("host:1", cluster_of_one(20, "second"), begin + seconds(2))[1],
              HasSubstr("10.0 tokens/s"));
}

TEST(StatusViewTest, TerminalDoesNotObeyNames) {
  v1::GetClusterResponse cluster = cluster_of_one(1);
  cluster.set_model("x\x1b[2Jy");
  StatusView view;
  EXPECT_THAT(view.frame("host:1", cluster, StatusView::Clock::now())[0], Not(HasSubstr("\x1b")));
}

TEST(StatusViewTest, BarsAreFullOnlyWhenAllIsUsed) {
  EXPECT_EQ(bar(0, 10, 4), "[....]   0%");
  EXPECT_EQ(bar(1, 1000, 4), "[#...]   0%");
  EXPECT_EQ(bar(999, 1000, 4), "[###.]  99%");
  EXPECT_EQ(bar(10, 10, 4), "[####] 100%");
  EXPECT_EQ(bar(0, 0, 4), "[....]    -");
  EXPECT_EQ(bar(-5, 10, 4), "[....]   0%");
  EXPECT_EQ(bar(50, 10, 4), "[####] 100%");
}

TEST(StatusViewTest, LinesAreClippedBetweenCharacters) {
  EXPECT_EQ(clip("abc", 3), "abc");
  EXPECT_EQ(clip("abcd", 3), "ab>");
  EXPECT_EQ(clip("äöüß", 3), "äö>");
  EXPECT_EQ(clip("", 3), "");
}

}  // namespace
}  // namespace trireme::client
