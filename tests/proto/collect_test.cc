#include "proto/support/collect.h"

#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

namespace trireme::rpc {
namespace {

template <typename Message>
Message parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message));
  return message;
}

TEST(CollectTest, StreamBecomesOneMessage) {
  v1::GenerateOnceResponse result;
  for (
      const char* text :
      {R"(prompt { request_id: "r" token_ids: [1, 2] seed: 9 })",
       R"(deltas { index: 1 token_ids: [5] text: "b" })",
       R"(deltas { index: 0 token_ids: [3, 4] text: "a" logprobs { chosen { token_id: 3 } } }
           deltas { index: 1 token_ids: [6] text: "c" finish_reason: FINISH_REASON_STOP })",
       R"(deltas { index: 0 text: "é" finish_reason: FINISH_REASON_LENGTH } usage { prompt_tokens: 2 completion_tokens: 4 })"})
    EXPECT_TRUE(collect(parse<v1::GenerateResponse>(text), 2, result));
  const auto wanted = parse<v1::GenerateOnceResponse>(R"(
    prompt { request_id: "r" token_ids: [1, 2] seed: 9 }
    completions { index: 0 token_ids: [3, 4] text: "aé" logprobs { chosen { token_id: 3 } }
                  finish_reason: FINISH_REASON_LENGTH }
    completions { index: 1 token_ids: [5, 6] text: "bc" finish_reason: FINISH_REASON_STOP }
    usage { prompt_tokens: 2 completion_tokens: 4 })");
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(result, wanted)) << result.DebugString();
}

TEST(CollectTest, UnaskedSampleIsRefused) {
  v1::GenerateOnceResponse result;
  EXPECT_FALSE(collect(parse<v1::GenerateResponse>("deltas { index: 2147483647 }"), 1, result));
  EXPECT_FALSE(collect(parse<v1::GenerateResponse>("deltas { index: -1 }"), 1, result));
  EXPECT_EQ(result.completions_size(), 0);
}

}  // namespace
}  // namespace trireme::rpc
