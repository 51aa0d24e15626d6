#include "proto/support/request_fields.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

namespace trireme::rpc {
namespace {

v1::GenerateRequest parse(const std::string& text) {
  v1::GenerateRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request));
  return request;
}

TEST(RequestFieldsTest, TakesEverySetField) {
  const RequestFields fields = request_fields(parse(R"(
    request_id: "r1" token_ids { ids: [1, 2] }
    sampling { temperature: 0.5 top_k: 3 top_p: 0.25 min_p: 0.125 repetition_penalty: 1.5 presence_penalty: -1
               frequency_penalty: 2 logit_bias { key: 7 value: -4 } }
    stopping { max_tokens: 9 min_tokens: 2 stop: "a" stop: "b" stop_token_ids: [4, 5] }
    output { n: 2 logprobs: 0 prompt_logprobs: 1 }
    resume { index: 1 token_ids: [8, 9] finished: true } resume { index: 0 })"));
  EXPECT_EQ(fields.request_id, "r1");
  EXPECT_FALSE(fields.has_text);
  EXPECT_EQ(fields.token_ids, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(fields.temperature, 0.5f);
  EXPECT_EQ(fields.top_k, 3);
  EXPECT_EQ(fields.top_p, 0.25f);
  EXPECT_EQ(fields.min_p, 0.125f);
  EXPECT_EQ(fields.repetition_penalty, 1.5f);
  EXPECT_EQ(fields.presence_penalty, -1.0f);
  EXPECT_EQ(fields.frequency_penalty, 2.0f);
  EXPECT_EQ(fields.logit_bias, (std::vector<std::pair<int32_t, float>>{{7, -4.0f}}));
  EXPECT_EQ(fields.max_tokens, 9);
  EXPECT_EQ(fields.min_tokens, 2);
  EXPECT_EQ(fields.stop, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(fields.stop_token_ids, (std::vector<int32_t>{4, 5}));
  EXPECT_EQ(fields.n, 2);
  EXPECT_EQ(fields.logprobs, 0);
  EXPECT_EQ(fields.prompt_logprobs, 1);
  ASSERT_EQ(fields.resume.size(), 2u);
  EXPECT_EQ(fields.resume[0].index, 1);
  EXPECT_EQ(fields.resume[0].token_ids, (std::vector<int32_t>{8, 9}));
  EXPECT_TRUE(fields.resume[0].finished);
  EXPECT_FALSE(fields.resume[1].finished);
}

TEST(RequestFieldsTest, UnsetStaysUnset) {
  const RequestFields fields = request_fields(parse(R"(text: "hi")"));
  EXPECT_TRUE(fields.has_text);
  EXPECT_EQ(fields.text, "hi");
  EXPECT_TRUE(fields.token_ids.empty());
  EXPECT_FALSE(fields.temperature || fields.top_k || fields.top_p || fields.min_p || fields.max_tokens ||
               fields.min_tokens || fields.n || fields.logprobs || fields.prompt_logprobs);
}

TEST(RequestFieldsTest, EmptyTextIsStillText) { EXPECT_TRUE(request_fields(parse(R"(text: "")")).has_text); }

}  // namespace
}  // namespace trireme::rpc
