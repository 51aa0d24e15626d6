// From tokens to messages.
#include "worker/response_builder.h"

#include <gtest/gtest.h>

#include <string>

#include "proto/support/errors.h"
#include "tests/worker/byte_tokenizer.h"

namespace trireme::worker {
namespace {

class ResponseBuilderTest : public testing::Test {
 protected:
  ResponseBuilder make(ResponseOptions options = {}) {
    v1::PromptInfo prompt;
    prompt.set_request_id("id");
    prompt.add_token_ids(1);
    prompt.add_token_ids(2);
    return ResponseBuilder(tokenizer.get(), std::move(options), prompt);
  }

  static void append(ResponseBuilder& builder, const std::string& text,
                     FinishReason finish = FinishReason::none) {
    for (size_t i = 0; i < text.size(); ++i) {
      TokenOutput output;
      output.token_id = static_cast<unsigned char>(text[i]);
      output.logprob = -0.25f;
      output.num_cached_tokens = 1;
      if (i + 1 == text.size()) output.finish = finish;
      builder.append(output);
    }
  }

  /// Everything there is now, as one delta.
  static v1::Delta rest(ResponseBuilder& builder) {
    v1::Delta all;
    v1::GenerateResponse message;
    for (; builder.next(message); message.Clear()) {
      for (const v1::Delta& delta : message.deltas()) {
        all.mutable_text()->append(delta.text());
        all.mutable_token_ids()->MergeFrom(delta.token_ids());
        if (delta.has_finish_reason()) all.set_finish_reason(delta.finish_reason());
      }
    }
    return all;
  }

  std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
};

TEST_F(ResponseBuilderTest, PromptThenCoalescedTokensThenTheEndWithUsage) {
  ResponseBuilder builder = make();
  v1::GenerateResponse message;
  EXPECT_FALSE(builder.next(message));
  append(builder, "abc");
  ASSERT_TRUE(builder.next(message));
  EXPECT_EQ(message.prompt().num_cached_tokens(), 1);
  EXPECT_EQ(message.deltas_size(), 0);
  message.Clear();
  ASSERT_TRUE(builder.next(message));
  ASSERT_EQ(message.deltas_size(), 1);
  EXPECT_EQ(message.deltas(0).text(), "abc");
  EXPECT_EQ(message.deltas(0).token_ids_size(), 3);
  EXPECT_FALSE(message.deltas(0).has_finish_reason());
  EXPECT_FALSE(builder.next(message));
  append(builder, "d", FinishReason::length);
  message.Clear();
  ASSERT_TRUE(builder.next(message));
  EXPECT_EQ(message.deltas(0).text(), "d");
  EXPECT_EQ(message.deltas(0).finish_reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(message.usage().prompt_tokens(), 2);
  EXPECT_EQ(message.usage().completion_tokens(), 4);
  EXPECT_EQ(message.usage().cached_tokens(), 1);
  EXPECT_TRUE(builder.complete());
  EXPECT_FALSE(builder.next(message));
}

TEST_F(ResponseBuilderTest, HalfACharacterIsHeldBack) {
  ResponseBuilder builder = make();
  append(builder, "\xC3");
  v1::GenerateResponse message;
  ASSERT_TRUE(builder.next(message));
  message.Clear();
  ASSERT_TRUE(builder.next(message));
  EXPECT_EQ(message.deltas(0).text(), "");
  EXPECT_EQ(message.deltas(0).token_ids_size(), 1);
  append(builder, "\xA9");
  message.Clear();
  ASSERT_TRUE(builder.next(message));
  EXPECT_EQ(message.deltas(0).text(), "é");
}

TEST_F(ResponseBuilderTest, StopStringEndsTextBeforeItselfAndTokensWithIt) {
  ResponseOptions options;
  options.stop = {"END"};
  ResponseBuilder builder = make(options);
  append(builder, "one E");
  v1::GenerateResponse message;
  ASSERT_TRUE(builder.next(message));
  message.Clear();
  ASSERT_TRUE(builder.next(message));
  EXPECT_EQ(message.deltas(0).text(), "one ");  // the E may be the beginning of the stop
  append(builder, "NDmore");
  EXPECT_TRUE(builder.finished());
  const v1::Delta end = rest(builder);
  EXPECT_EQ(end.text(), "");
  EXPECT_EQ(end.token_ids_size(), 2);
  EXPECT_EQ(end.finish_reason(), v1::FINISH_REASON_STOP);
}

TEST_F(ResponseBuilderTest, HeldBackTextComesWithTheEnd) {
  ResponseOptions options;
  options.stop = {"END"};
  ResponseBuilder builder = make(options);
  append(builder, "one EN", FinishReason::length);
  EXPECT_EQ(rest(builder).text(), "one EN");
}

TEST_F(ResponseBuilderTest, StopStringBeforeMinTokensDoesNotCount) {
  ResponseOptions options;
  options.stop = {"aa"};
  options.min_tokens = 4;
  ResponseBuilder builder = make(options);
  append(builder, "aab");
  EXPECT_FALSE(builder.finished());
  append(builder, "aa");
  EXPECT_TRUE(builder.finished());
  EXPECT_EQ(rest(builder).text(), "aab");
}

TEST_F(ResponseBuilderTest, LogprobsComeOnePerToken) {
  ResponseOptions options;
  options.logprobs = true;
  ResponseBuilder builder = make(options);
  append(builder, "ab");
  v1::GenerateResponse message;
  ASSERT_TRUE(builder.next(message));
  message.Clear();
  ASSERT_TRUE(builder.next(message));
  ASSERT_EQ(message.deltas(0).logprobs_size(), 2);
  EXPECT_EQ(message.deltas(0).logprobs(1).chosen().token_id(), 'b');
  EXPECT_FLOAT_EQ(message.deltas(0).logprobs(1).chosen().logprob(), -0.25f);
}

TokenOutput with_logprobs(int32_t id, int32_t num_top) {
  TokenOutput output;
  output.token_id = id;
  output.logprob = -0.5f;
  auto more = std::make_shared<OutputLogprobs>();
  for (int32_t i = 0; i < num_top; ++i) more->top.push_back({i, -static_cast<float>(i)});
  output.more = more;
  return output;
}

TEST_F(ResponseBuilderTest, TopLogprobsComeWithTheirTokenAndCountAsPending) {
  ResponseOptions options;
  options.logprobs = true;
  ResponseBuilder builder = make(options);
  builder.append(with_logprobs('a', 0));
  const size_t without = builder.pending_bytes();
  builder.append(with_logprobs('b', 20));
  EXPECT_GT(builder.pending_bytes(), without + 20 * 12);
  v1::GenerateResponse message;
  ASSERT_TRUE(builder.next(message));
  message.Clear();
  ASSERT_TRUE(builder.next(message));
  EXPECT_EQ(builder.pending_bytes(), 0u);
  EXPECT_EQ(message.deltas(0).logprobs(0).top_size(), 0);
  ASSERT_EQ(message.deltas(0).logprobs(1).top_size(), 20);
  EXPECT_EQ(message.deltas(0).logprobs(1).top(19).token_id(), 19);
  EXPECT_EQ(message.deltas(0).logprobs(1).top(19).logprob(), -19);
}

TEST_F(ResponseBuilderTest, TheFirstMessageWaitsForThePromptsLogprobs) {
  ResponseOptions options;
  options.prompt_logprobs = true;
  ResponseBuilder builder = make(options);
  append(builder, "a");
  v1::GenerateResponse message;
  EXPECT_FALSE(builder.next(message));
  TokenOutput output = with_logprobs('b', 0);
  PromptLogprobs logprobs{2, {-0.75f}, {{7, -0.25f}, {2, -0.75f}}};
  output.more =
      std::make_shared<OutputLogprobs>(OutputLogprobs{{}, std::make_shared<PromptLogprobs>(logprobs)});
  builder.append(output);
  ASSERT_TRUE(builder.next(message));
  ASSERT_EQ(message.prompt().logprobs_size(), 2);  // one per prompt token, which are 1 and 2
  EXPECT_FALSE(message.prompt().logprobs(0).has_chosen());
  EXPECT_EQ(message.prompt().logprobs(1).chosen().token_id(), 2);
  EXPECT_EQ(message.prompt().logprobs(1).chosen().logprob(), -0.75f);
  ASSERT_EQ(message.prompt().logprobs(1).top_size(), 2);
  EXPECT_EQ(message.prompt().logprobs(1).top(0).token_id(), 7);
  EXPECT_EQ(rest(builder).text(), "ab");
}

TEST_F(ResponseBuilderTest, CancelledBeforeThePromptsLogprobsTheAnswerIsCompleteWithoutThem) {
  ResponseOptions options;
  options.prompt_logprobs = true;
  ResponseBuilder builder = make(options);
  TokenOutput end;
  end.has_token = false;
  end.finish = FinishReason::cancelled;
  builder.append(end);
  v1::GenerateResponse message;
  ASSERT_TRUE(builder.next(message));
  EXPECT_EQ(message.prompt().logprobs_size(), 0);
  EXPECT_EQ(rest(builder).finish_reason(), v1::FINISH_REASON_CANCELLED);
  EXPECT_TRUE(builder.complete());
}

TEST_F(ResponseBuilderTest, CancelledBeforeAnyTokenIsACompleteAnswer) {
  ResponseBuilder builder = make();
  TokenOutput end;
  end.has_token = false;
  end.finish = FinishReason::cancelled;
  builder.append(end);
  const v1::Delta delta = rest(builder);
  EXPECT_EQ(delta.token_ids_size(), 0);
  EXPECT_EQ(delta.finish_reason(), v1::FINISH_REASON_CANCELLED);
  EXPECT_TRUE(builder.complete());
}

TEST_F(ResponseBuilderTest, NumbersThatAreNoneAreAnError) {
  ResponseBuilder builder = make();
  append(builder, "a");
  TokenOutput end;
  end.has_token = false;
  end.finish = FinishReason::numerical_error;
  builder.append(end);
  EXPECT_TRUE(absl::IsInternal(builder.error()));
}

TEST_F(ResponseBuilderTest, ResumedAnywhereTheTextIsThatOfAnUnbrokenRun) {
  struct Case {
    std::string said;  // by the model
    std::vector<std::string> stop;
    int32_t min_tokens;
  };
  const std::vector<Case> cases = {
      {"plain text", {}, 0},
      {"caf\xC3\xA9 \xF0\x9F\x98\x80!", {}, 0},  // characters of several tokens
      {"broken \xC3", {}, 0},                    // and one that never comes to its end
      {"one EN ENDmore", {"END"}, 0},            // half matches, then a whole one
      {"aab aab aab", {"aab"}, 5},               // the first does not count
      {"\xE2\x82\xAC\xE2\x82\xAC!", {"\xAC\xE2"}, 0},
  };
  for (const Case& c : cases) {
    ResponseOptions options;
    options.stop = c.stop;
    options.min_tokens = c.min_tokens;
    StoppingParams stopping;
    stopping.max_tokens = static_cast<int32_t>(c.said.size());
    stopping.min_tokens = c.min_tokens;
    ResponseBuilder unbroken = make(options);
    append(unbroken, c.said, FinishReason::length);
    const v1::Delta whole = rest(unbroken);
    const auto num_tokens = static_cast<size_t>(whole.token_ids_size());
    for (size_t cut = 0; cut < num_tokens; ++cut) {
      ResponseBuilder first = make(options);
      append(first, c.said.substr(0, cut));
      const v1::Delta passed_on = rest(first);
      ResponseBuilder second = make(options);
      const std::vector<int32_t> ids(passed_on.token_ids().begin(), passed_on.token_ids().end());
      ASSERT_FALSE(second.resume({{0, ids, false}}, stopping));
      append(second, c.said.substr(cut), FinishReason::length);
      const v1::Delta continued = rest(second);
      EXPECT_EQ(passed_on.text() + continued.text(), whole.text()) << c.said << ", cut at " << cut;
      EXPECT_EQ(ids.size() + static_cast<size_t>(continued.token_ids_size()), num_tokens);
      EXPECT_EQ(continued.finish_reason(), whole.finish_reason());
    }
  }
}

TEST_F(ResponseBuilderTest, ResumedAtItsEndItFinishesAtOnceWithThatReason) {
  StoppingParams stopping;
  stopping.max_tokens = 4;
  stopping.stop_token_ids = {kEndToken};
  ResponseOptions options;
  options.stop = {"!"};
  struct Case {
    std::vector<int32_t> ids;
    v1::FinishReason reason;
    std::string released;
  };
  for (const Case& c : std::vector<Case>{{{'a', kEndToken}, v1::FINISH_REASON_STOP, ""},
                                         {{'a', 'b', '!'}, v1::FINISH_REASON_STOP, ""},
                                         {{'a', 'b', 'c', 0xC3}, v1::FINISH_REASON_LENGTH, "\uFFFD"}}) {
    ResponseBuilder builder = make(options);
    ASSERT_FALSE(builder.resume({{0, c.ids, false}}, stopping));
    ASSERT_TRUE(builder.finished());
    v1::GenerateResponse message;
    ASSERT_TRUE(builder.next(message));
    EXPECT_EQ(message.prompt().request_id(), "id");
    message.Clear();
    ASSERT_TRUE(builder.next(message));
    ASSERT_EQ(message.deltas_size(), 1);
    EXPECT_EQ(message.deltas(0).token_ids_size(), 0);
    EXPECT_EQ(message.deltas(0).text(), c.released);
    EXPECT_EQ(message.deltas(0).finish_reason(), c.reason);
    EXPECT_EQ(message.usage().completion_tokens(), static_cast<int32_t>(c.ids.size()));
    EXPECT_TRUE(builder.complete());
  }
}

TEST_F(ResponseBuilderTest, OfAFinishedSampleNothingIsGivenAgain) {
  ResponseBuilder builder = make();
  ASSERT_FALSE(builder.resume({{0, {'a', 0xC3}, true}}, {}));
  v1::GenerateResponse message;
  ASSERT_TRUE(builder.next(message));
  message.Clear();
  ASSERT_TRUE(builder.next(message));
  EXPECT_EQ(message.deltas_size(), 0);
  EXPECT_EQ(message.usage().completion_tokens(), 2);
  EXPECT_TRUE(builder.complete());
}

TEST_F(ResponseBuilderTest, ResumedTokensBehindTheEndAreNamed) {
  StoppingParams stopping;
  stopping.max_tokens = 4;
  stopping.stop_token_ids = {kEndToken};
  ResponseOptions options;
  options.stop = {"!"};
  const auto named = [&](const std::vector<int32_t>& ids, bool finished) {
    ResponseBuilder builder = make(options);
    const auto violation = builder.resume({{0, ids, finished}}, stopping);
    return violation ? violation->field : "none";
  };
  EXPECT_EQ(named({'a', 'b', 'c', 'd'}, true), "none");
  EXPECT_EQ(named({'a', kEndToken, 'b'}, false), "resume[0].token_ids[2]");
  EXPECT_EQ(named({'a', kEndToken, 'b'}, true), "resume[0].token_ids[2]");
  EXPECT_EQ(named({'!', 'b'}, false), "resume[0].token_ids[1]");
  EXPECT_EQ(named({'a', 'b', 'c', 'd', 'e'}, false), "resume[0].token_ids[4]");
}

TEST_F(ResponseBuilderTest, PendingBytesFallToZeroWhenTaken) {
  ResponseBuilder builder = make();
  append(builder, "abcd");
  EXPECT_GE(builder.pending_bytes(), 4u + 4u);
  rest(builder);
  EXPECT_EQ(builder.pending_bytes(), 0u);
}

}  // namespace
}  // namespace trireme::worker
