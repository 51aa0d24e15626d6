// From messages to requests.
#include "worker/request_builder.h"

#include <gtest/gtest.h>

#include <string>

#include "proto/support/errors.h"
#include "tests/worker/byte_tokenizer.h"

namespace trireme::worker {
namespace {

class RequestBuilderTest : public testing::Test {
 protected:
  RequestBuilderTest() {
    model.name = "bytes";
    model.vocab_size = kByteVocabSize;
    model.max_context_len = 100;
    model.eos_token_ids = {kEndToken};
    model.tokenizer = tokenizer.get();
    message.set_text("hello");
  }

  grpc::Status build() {
    AdmittedRequest admitted;
    if (auto status = admit(message, model, admitted); !status.ok()) return status;
    return build_request(admitted, model, request);
  }

  std::string violated_field() {
    const auto bad = rpc::bad_request(build());
    return bad && bad->field_violations_size() == 1 ? bad->field_violations(0).field() : "none";
  }

  std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
  ServedModel model;
  v1::GenerateRequest message;
  Request request;
};

TEST_F(RequestBuilderTest, UnsetFieldsMeanGreedyAndSixteenTokens) {
  ASSERT_TRUE(build().ok());
  EXPECT_EQ(request.prompt, (std::vector<int32_t>{'h', 'e', 'l', 'l', 'o'}));
  EXPECT_EQ(request.sampling.temperature, 0);
  EXPECT_EQ(request.stopping.max_tokens, 16);
  EXPECT_EQ(request.stopping.stop_token_ids, std::vector<int32_t>{kEndToken});
}

TEST_F(RequestBuilderTest, UnsetMaxTokensIsWhatIsLeftOfAShortContext) {
  model.max_context_len = 12;
  ASSERT_TRUE(build().ok());
  EXPECT_EQ(request.stopping.max_tokens, 7);
}

TEST_F(RequestBuilderTest, GenerationDefaultsFillUnsetFields) {
  model.defaults.do_sample = true;
  model.defaults.temperature = 0.6f;
  model.defaults.top_k = 20;
  model.defaults.top_p = 0.9f;
  message.mutable_sampling()->set_top_p(0.5f);
  message.mutable_sampling()->set_seed(7);
  ASSERT_TRUE(build().ok());
  EXPECT_FLOAT_EQ(request.sampling.temperature, 0.6f);
  EXPECT_EQ(request.sampling.top_k, 20);
  EXPECT_FLOAT_EQ(request.sampling.top_p, 0.5f);
  EXPECT_EQ(request.sampling.seed, 7u);
}

TEST_F(RequestBuilderTest, ModelThatDoesNotSampleByDefaultIsGreedy) {
  model.defaults.temperature = 0.6f;
  ASSERT_TRUE(build().ok());
  EXPECT_EQ(request.sampling.temperature, 0);
}

TEST_F(RequestBuilderTest, IgnoreEosLeavesOnlyTheClientsStops) {
  message.mutable_stopping()->set_ignore_eos(true);
  message.mutable_stopping()->add_stop_token_ids(5);
  ASSERT_TRUE(build().ok());
  EXPECT_EQ(request.stopping.stop_token_ids, std::vector<int32_t>{5});
}

TEST_F(RequestBuilderTest, SeedsAreDrawnWhenUnset) {
  ASSERT_TRUE(build().ok());
  const uint64_t first = request.sampling.seed;
  ASSERT_TRUE(build().ok());
  EXPECT_NE(request.sampling.seed, first);
}

TEST_F(RequestBuilderTest, OtherModelsAreNotFound) {
  message.set_model("other");
  EXPECT_EQ(build().error_code(), grpc::StatusCode::NOT_FOUND);
  message.set_model("bytes");
  EXPECT_TRUE(build().ok());
}

TEST_F(RequestBuilderTest, LengthsAreExactAfterTokenizing) {
  message.set_text(std::string(100, 'x'));
  EXPECT_EQ(violated_field(), "text");
  message.set_text(std::string(90, 'x'));
  message.mutable_stopping()->set_max_tokens(11);
  EXPECT_EQ(violated_field(), "stopping.max_tokens");
  message.mutable_stopping()->set_max_tokens(10);
  EXPECT_TRUE(build().ok());
}

TEST_F(RequestBuilderTest, BadFieldsAreNamed) {
  message.mutable_token_ids()->add_ids(kByteVocabSize);
  EXPECT_EQ(violated_field(), "token_ids.ids[0]");
  message.set_text("x");
  message.mutable_sampling()->set_temperature(-1);
  EXPECT_EQ(violated_field(), "sampling.temperature");
}

TEST_F(RequestBuilderTest, PenaltiesBiasesAndLogprobsReachTheEngine) {
  v1::SamplingParams& sampling = *message.mutable_sampling();
  sampling.set_repetition_penalty(1.25f);
  sampling.set_presence_penalty(0.5f);
  sampling.set_frequency_penalty(-0.75f);
  (*sampling.mutable_logit_bias())[3] = -2.5f;
  message.mutable_stopping()->set_min_tokens(4);
  message.mutable_output()->set_logprobs(3);
  message.mutable_output()->set_prompt_logprobs(0);
  ASSERT_TRUE(build().ok());
  EXPECT_EQ(request.sampling.repetition_penalty, 1.25f);
  EXPECT_EQ(request.sampling.presence_penalty, 0.5f);
  EXPECT_EQ(request.sampling.frequency_penalty, -0.75f);
  EXPECT_EQ(request.sampling.logit_bias, (std::vector<std::pair<int32_t, float>>{{3, -2.5f}}));
  EXPECT_EQ(request.stopping.min_tokens, 4);
  EXPECT_EQ(request.output.num_top_logprobs, 3);
  EXPECT_EQ(request.output.num_prompt_logprobs, 0);
}

TEST_F(RequestBuilderTest, UnsetTheyAreOff) {
  ASSERT_TRUE(build().ok());
  EXPECT_EQ(request.sampling.repetition_penalty, 1);
  EXPECT_EQ(request.sampling.presence_penalty, 0);
  EXPECT_EQ(request.sampling.frequency_penalty, 0);
  EXPECT_TRUE(request.sampling.logit_bias.empty());
  EXPECT_EQ(request.output.num_top_logprobs, 0);
  EXPECT_EQ(request.output.num_prompt_logprobs, -1);
}

TEST_F(RequestBuilderTest, TheModelsRepetitionPenaltyIsItsDefaultEvenWhenGreedy) {
  model.defaults.repetition_penalty = 1.1f;
  ASSERT_TRUE(build().ok());
  EXPECT_EQ(request.sampling.temperature, 0);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.1f);
  message.mutable_sampling()->set_repetition_penalty(1);
  ASSERT_TRUE(build().ok());
  EXPECT_EQ(request.sampling.repetition_penalty, 1);
}

TEST_F(RequestBuilderTest, OneSampleAsksForThePromptsLogprobs) {
  message.mutable_output()->set_prompt_logprobs(2);
  message.mutable_output()->set_logprobs(1);
  ASSERT_TRUE(build().ok());
  const auto samples = split_samples(request, {}, {true, false, false});  // the first ended elsewhere
  ASSERT_EQ(samples.size(), 2u);
  EXPECT_EQ(samples[0].output.num_prompt_logprobs, 2);
  EXPECT_EQ(samples[1].output.num_prompt_logprobs, -1);
  EXPECT_EQ(samples[1].output.num_top_logprobs, 1);
}

TEST_F(RequestBuilderTest, TextNeedsATokenizer) {
  model.tokenizer = nullptr;
  EXPECT_EQ(build().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  message.mutable_token_ids()->add_ids(1);
  EXPECT_TRUE(build().ok());
}

}  // namespace
}  // namespace trireme::worker
