// How long prompt, output and what is resumed of it may be.

#include <climits>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/base/request_limits_fixture.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;

TEST(RequestLimitsTest, PromptIsNeverEmpty) {
  RequestFields request;
  EXPECT_EQ(violated(request), "prompt");
  request.has_text = true;
  EXPECT_EQ(violated(request), "text");
  request.text += 'x';
  EXPECT_EQ(violated(request), "");
}

TEST(RequestLimitsTest, PromptBytesAreBoundedBeforeTokenizing) {
  RequestFields request;
  request.has_text = true;
  request.text = std::string(1 << 20, 'x');
  EXPECT_EQ(violated(request), "");
  request.text += 'x';
  EXPECT_EQ(violated(request), "text");
}

TEST(RequestLimitsTest, PromptTokensAreBoundedWithoutAKnownContext) {
  RequestFields request;
  request.token_ids.assign(1 << 20, 0);
  EXPECT_EQ(violated(request, RequestLimits{}), "");
  request.token_ids.push_back(0);
  EXPECT_EQ(violated(request, RequestLimits{}), "token_ids");
}

TEST(RequestLimitsTest, ContextHasRoomForOneOutputToken) {
  RequestFields request;
  request.token_ids.assign(kContext - 1, 1);
  EXPECT_EQ(violated(request), "");
  request.max_tokens = 1;
  EXPECT_EQ(violated(request), "");
  request.max_tokens = 2;  // the prompt alone fits, so the length asked for is what is wrong
  EXPECT_EQ(violated(request), "stopping.max_tokens");
  request.max_tokens.reset();
  request.token_ids.push_back(1);
  EXPECT_EQ(violated(request), "token_ids");
}

TEST(RequestLimitsTest, TokenizedTextIsNamedAsText) {
  RequestFields request;
  request.has_text = true;
  request.text = "hello";
  request.max_tokens = kContext - 1;  // text that is not tokenized yet counts as one token
  EXPECT_EQ(violated(request), "");
  request.max_tokens = kContext;
  EXPECT_EQ(violated(request), "stopping.max_tokens");
  request.token_ids.assign(kContext, 1);
  request.max_tokens.reset();
  EXPECT_EQ(violated(request), "text");
}

TEST(RequestLimitsTest, UnknownModelLeavesOnlyWhatCanBeKnown) {
  RequestFields request = good();
  request.token_ids = {INT_MAX};
  request.max_tokens = INT_MAX;
  EXPECT_EQ(violated(request, RequestLimits{}), "");
  request.token_ids = {-1};
  EXPECT_EQ(violated(request, RequestLimits{}), "token_ids.ids[0]");
}

TEST(RequestLimitsTest, ResumeStatesAreOnePerSampleAndOfTheVocabulary) {
  RequestFields request = good();
  request.n = 3;
  request.resume = {{2, {1, 2}, true}, {0, {kVocab - 1}, false}};
  EXPECT_EQ(violated(request), "");
  request.resume[1].token_ids = {0, 1, 2, kVocab};
  EXPECT_EQ(violated(request), "resume[1].token_ids[3]");
  request.resume[1].token_ids = {-1};
  EXPECT_EQ(violated(request), "resume[1].token_ids[0]");
  request.resume[1].token_ids = {};
  for (const int32_t wrong : {-1, 2, 3}) {
    request.resume[1].index = wrong;
    EXPECT_EQ(violated(request), "resume[1].index") << wrong;
  }
}

TEST(RequestLimitsTest, ResumedTokensFitMaxTokensAndContext) {
  RequestFields request = good();
  request.resume = {{0, std::vector<int32_t>(kContext - 4, 1), false}};
  EXPECT_EQ(violated(request), "");
  request.resume[0].token_ids.push_back(1);
  EXPECT_EQ(violated(request), "resume[0].token_ids");
  request.max_tokens = 3;
  request.resume[0].token_ids.resize(3);
  EXPECT_EQ(violated(request), "");
  request.resume[0].token_ids.resize(4);
  EXPECT_EQ(violated(request), "resume[0].token_ids");
  RequestLimits unknown = limits();
  unknown.max_context_len = 0;
  unknown.max_prompt_bytes = 10;
  request.max_tokens.reset();
  request.resume[0].token_ids.resize(10);
  EXPECT_EQ(violated(request, unknown), "");
  request.resume[0].token_ids.resize(11);
  EXPECT_EQ(violated(request, unknown), "resume[0].token_ids");
}

TEST(RequestLimitsTest, PromptLogprobsFitIntoOneMessage) {
  RequestLimits small = limits();
  small.max_prompt_logprob_entries = 84;
  RequestFields request = good();  // four tokens
  request.prompt_logprobs = 20;
  EXPECT_EQ(violated(request, small), "");
  small.max_prompt_logprob_entries = 83;
  EXPECT_EQ(violated(request, small), "output.prompt_logprobs");
  EXPECT_THAT(validate(request, small)->description,
              HasSubstr("20 for 4 tokens, which gives 84 entries; at most 83"));
  request.prompt_logprobs.reset();
  EXPECT_EQ(violated(request, small), "");
  // A text is one token until it is tokenized.
  request = RequestFields();
  request.has_text = true;
  request.text = "abcd";
  request.prompt_logprobs = 20;
  EXPECT_EQ(violated(request, small), "");
  request.token_ids = {1, 2, 3, 4};
  EXPECT_EQ(violated(request, small), "output.prompt_logprobs");
}

TEST(RequestLimitsTest, TheLargestPromptDoesNotOverflow) {
  RequestFields request;
  request.token_ids.assign(1 << 20, 0);
  request.prompt_logprobs = 20;
  EXPECT_EQ(violated(request, RequestLimits{}), "output.prompt_logprobs");
}

}  // namespace
}  // namespace trireme
