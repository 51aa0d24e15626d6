#include "launch/client/generation.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

namespace trireme::client {
namespace {

using std::chrono::milliseconds;

v1::GenerateResponse message(const char* text) {
  v1::GenerateResponse result;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &result)) << text;
  return result;
}

class GenerationTest : public ::testing::Test {
 protected:
  Generation::Clock::time_point at(int ms) const { return start_ + milliseconds(ms); }
  const Generation::Clock::time_point start_ = Generation::Clock::now();
  Generation generation_{start_};
};

TEST_F(GenerationTest, CollectsTokensTextReasonAndUsage) {
  EXPECT_EQ(
      generation_.add(message(R"(prompt { request_id: "r1" model: "m" token_ids: [7, 8] seed: 5 })"), at(1)),
      "");
  EXPECT_EQ(generation_.add(message(R"(deltas { token_ids: [1, 2] text: "ab" })"), at(10)), "ab");
  EXPECT_EQ(generation_.add(message(R"(deltas { token_ids: 3 text: "c" finish_reason: FINISH_REASON_STOP }
                                       usage { prompt_tokens: 2 completion_tokens: 3 cached_tokens: 1 })"),
                            at(30)),
            "c");
  generation_.end(at(40));
  const nlohmann::json json = generation_.to_json();
  EXPECT_EQ(json["request_id"], "r1");
  EXPECT_EQ(json["model"], "m");
  EXPECT_EQ(json["seed"], 5);
  EXPECT_EQ(json["prompt_token_ids"], nlohmann::json({7, 8}));
  EXPECT_EQ(json["token_ids"], nlohmann::json({1, 2, 3}));
  EXPECT_EQ(json["text"], "abc");
  EXPECT_EQ(json["finish_reason"], "stop");
  EXPECT_EQ(json["usage"],
            (nlohmann::json{{"prompt_tokens", 2}, {"completion_tokens", 3}, {"cached_tokens", 1}}));
}

TEST_F(GenerationTest, SamplesAreKeptApart) {
  Generation generation(start_, 2);
  EXPECT_EQ(generation.add(message(R"(deltas { index: 1 token_ids: 5 text: "x" })"), at(10)), "");
  EXPECT_EQ(generation.add(message(R"(deltas { token_ids: 1 text: "a" finish_reason: FINISH_REASON_STOP }
                                      deltas { index: 1 token_ids: [6, 7] text: "yz" }
                                      deltas { index: 2 token_ids: 9 text: "not asked for" })"),
                           at(30)),
            "a");
  generation.end(at(40));
  EXPECT_EQ(generation.num_tokens(), 4);
  EXPECT_EQ(generation.text(1), "xyz");
  EXPECT_EQ(generation.summary(), "4 tokens in 0.04 s: 100.0 tokens/s, TTFT 10.0 ms, 2 samples");
  const nlohmann::json json = generation.to_json();
  EXPECT_EQ(json["text"], "a");
  ASSERT_EQ(json["samples"].size(), 2u);
  EXPECT_EQ(json["samples"][0]["finish_reason"], "stop");
  EXPECT_EQ(json["samples"][1]["token_ids"], nlohmann::json({5, 6, 7}));
  EXPECT_EQ(json["samples"][1]["itl_ms"], nlohmann::json({20.0, 0.0}));
  EXPECT_FALSE(generation_.to_json().contains("samples"));
}

TEST_F(GenerationTest, LogprobsAreShownWhereTheyCame) {
  generation_.add(message(R"(prompt { token_ids: [7, 8]
                                      logprobs {}
                                      logprobs { chosen { token_id: 8 logprob: -0.5 }
                                                 top { token_id: 9 logprob: -0.25 } } })"),
                  at(1));
  generation_.add(message(R"(deltas { token_ids: 1 logprobs { chosen { token_id: 1 logprob: -2 } } })"),
                  at(2));
  generation_.add(message(R"(deltas { token_ids: 2 logprobs { chosen { token_id: 2 logprob: -4 }
                                                              top { token_id: 3 logprob: -1 } } })"),
                  at(3));
  generation_.end(at(4));
  const nlohmann::json json = generation_.to_json();
  EXPECT_EQ(json["prompt_logprobs"], nlohmann::json::parse(R"([null,
      {"token_id": 8, "logprob": -0.5, "top": [{"token_id": 9, "logprob": -0.25}]}])"));
  EXPECT_EQ(json["logprobs"], nlohmann::json::parse(R"([{"token_id": 1, "logprob": -2.0, "top": []},
      {"token_id": 2, "logprob": -4.0, "top": [{"token_id": 3, "logprob": -1.0}]}])"));
}

TEST_F(GenerationTest, WithoutLogprobsTheyAreLeftOut) {
  generation_.add(message("deltas { token_ids: 1 }"), at(2));
  EXPECT_FALSE(generation_.to_json().contains("logprobs"));
  EXPECT_FALSE(generation_.to_json().contains("prompt_logprobs"));
}

TEST_F(GenerationTest, TimesCountFromTheStartOfTheCall) {
  generation_.add(message("deltas { token_ids: 1 }"), at(20));
  generation_.add(message("deltas { token_ids: [2, 3] }"), at(30));
  generation_.add(message("deltas { token_ids: 4 }"), at(50));
  generation_.end(at(60));
  const nlohmann::json timing = generation_.to_json()["timing"];
  EXPECT_EQ(timing["ttft_ms"], 20.0);
  EXPECT_EQ(timing["total_ms"], 60.0);
  EXPECT_EQ(timing["itl_ms"], nlohmann::json({10.0, 0.0, 20.0}));
  EXPECT_DOUBLE_EQ(timing["tokens_per_s"], 4 / 0.060);
  EXPECT_EQ(generation_.summary(), "4 tokens in 0.06 s: 66.7 tokens/s, TTFT 20.0 ms");
}

TEST_F(GenerationTest, NoTokenMeansNoTimeToFirstToken) {
  generation_.end(at(10));
  EXPECT_FALSE(generation_.to_json()["timing"].contains("ttft_ms"));
  EXPECT_EQ(generation_.to_json()["timing"]["tokens_per_s"], 0);
  EXPECT_EQ(generation_.to_json()["finish_reason"], "");
}

TEST_F(GenerationTest, TheRateIsThatOfTheWholeCall) {
  generation_.add(message("deltas { token_ids: 1 }"), at(100));
  generation_.end(at(200));
  EXPECT_DOUBLE_EQ(generation_.tokens_per_s(), 5.0);
}

TEST_F(GenerationTest, ReceiptIsTakenFromTheTrailingMetadata) {
  generation_.add_receipt({{"trireme-queue-ms", "0.250"},
                           {"trireme-cached-tokens", "16"},
                           {"trireme-replicas", "a-0,b-0"},
                           {"trireme-odd-ms", "nan"},
                           {"other", "x"}});
  generation_.end(at(1));
  const nlohmann::json receipt = generation_.to_json()["receipt"];
  EXPECT_EQ(receipt,
            nlohmann::json(
                {{"queue_ms", 0.25}, {"cached_tokens", 16}, {"replicas", "a-0,b-0"}, {"odd_ms", "nan"}}));
}

TEST_F(GenerationTest, OtherSamplesAreLeftOut) {
  EXPECT_EQ(
      generation_.add(
          message(R"(deltas { index: 1 token_ids: 9 text: "x" } deltas { token_ids: 1 text: "a" })"), at(1)),
      "a");
  EXPECT_EQ(generation_.num_tokens(), 1);
}

}  // namespace
}  // namespace trireme::client
