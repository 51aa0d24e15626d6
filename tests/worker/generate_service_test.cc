#include "worker/generate_service.h"

#include <gtest/gtest.h>

#include <future>

#include "proto/support/errors.h"
#include "tests/worker/service_fixture.h"

namespace trireme::worker {
namespace {

using std::chrono::seconds;

class GenerateServiceTest : public ServiceFixture {};

TEST_F(GenerateServiceTest, StreamIsPromptThenTokensThenTheEndWithUsage) {
  start(saying("hello world"));
  v1::GenerateRequest asked = request("abc");
  asked.set_request_id("my-id");
  asked.mutable_sampling()->set_seed(42);
  const Stream stream = generate(asked);
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  ASSERT_GE(stream.messages.size(), 2u);
  const v1::PromptInfo& prompt = stream.messages.front().prompt();
  EXPECT_EQ(prompt.request_id(), "my-id");
  EXPECT_EQ(prompt.model(), "bytes");
  EXPECT_EQ(prompt.seed(), 42u);
  EXPECT_EQ(prompt.token_ids_size(), 3);
  EXPECT_EQ(stream.messages.front().deltas_size(), 0);
  for (size_t i = 1; i < stream.messages.size(); ++i) {
    EXPECT_FALSE(stream.messages[i].has_prompt());
    EXPECT_EQ(stream.messages[i].has_usage(), i + 1 == stream.messages.size());
  }
  EXPECT_EQ(stream.text, "hello world");
  EXPECT_EQ(stream.token_ids.back(), kEndToken);
  EXPECT_EQ(stream.finish_reason, v1::FINISH_REASON_STOP);
  const v1::Usage& usage = stream.messages.back().usage();
  EXPECT_EQ(usage.prompt_tokens(), 3);
  EXPECT_EQ(usage.completion_tokens(), 12);
}

TEST_F(GenerateServiceTest, TokensAreStreamedWhileTheyAreMade) {
  start(saying("hello"));
  engine->hold();
  auto call_context = context();
  auto reader = stub->Generate(call_context.get(), request());
  v1::GenerateResponse message;
  engine->permit(1);
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_TRUE(message.has_prompt());
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.deltas(0).text(), "h");
  engine->permit(1);
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(message.deltas(0).text(), "e");
  engine->let_go();
  EXPECT_EQ(read_all(*reader).text, "llo");
}

TEST_F(GenerateServiceTest, OnceGivesTheWholeStream) {
  start(saying("hello"));
  auto call_context = context();
  v1::GenerateOnceResponse response;
  v1::GenerateRequest asked = request("abc");
  asked.mutable_output()->set_logprobs(0);
  const grpc::Status status = stub->GenerateOnce(call_context.get(), asked, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.prompt().token_ids_size(), 3);
  EXPECT_FALSE(response.prompt().request_id().empty());
  ASSERT_EQ(response.completions_size(), 1);
  EXPECT_EQ(response.completions(0).text(), "hello");
  EXPECT_EQ(response.completions(0).logprobs_size(), 6);
  EXPECT_EQ(response.completions(0).finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(response.usage().completion_tokens(), 6);
}

TEST_F(GenerateServiceTest, ManyStreamsAtOnceEachGetTheirOwn) {
  FakeEngine::Script script;
  script.token = [](const Request& asked, int32_t) { return asked.prompt[0]; };
  start(script);
  std::vector<std::future<Stream>> streams;
  for (int i = 0; i < 32; ++i) {
    streams.push_back(std::async(std::launch::async, [this, i] {
      return generate(request(std::string(1, static_cast<char>('A' + i)), 200));
    }));
  }
  for (int i = 0; i < 32; ++i) {
    const Stream stream = streams[static_cast<size_t>(i)].get();
    ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
    EXPECT_EQ(stream.text, std::string(200, static_cast<char>('A' + i)));
  }
}

TEST_F(GenerateServiceTest, WhatComesWhileAWriteIsOnItsWayIsOneMessage) {
  // This engine gives a token about each microsecond, which no writer keeps up with.
  constexpr int kTokens = 4000;
  FakeEngine::Script script;
  script.token = [](const Request&, int32_t n) { return 'a' + n % 26; };
  start(script);
  const Stream stream = generate(request("x", kTokens));
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  ASSERT_EQ(stream.token_ids.size(), static_cast<size_t>(kTokens));
  for (int i = 0; i < kTokens; ++i) ASSERT_EQ(stream.token_ids[static_cast<size_t>(i)], 'a' + i % 26);
  EXPECT_EQ(stream.text.size(), static_cast<size_t>(kTokens));
  EXPECT_LT(stream.messages.size(), static_cast<size_t>(kTokens) / 2);
}

TEST_F(GenerateServiceTest, StopStringEndsTheEngineSideToo) {
  start(saying("one two three four" + std::string(100000, 'x')));
  v1::GenerateRequest asked = request();
  asked.mutable_stopping()->add_stop("three");
  const Stream stream = generate(asked);
  ASSERT_TRUE(stream.status.ok());
  EXPECT_EQ(stream.text, "one two ");
  EXPECT_EQ(stream.token_ids.size(), 13u);
  EXPECT_EQ(stream.finish_reason, v1::FINISH_REASON_STOP);
  EXPECT_EQ(stream.messages.back().usage().completion_tokens(), 13);
  EXPECT_TRUE(engine->wait_for([](const auto& counts) { return counts.cancelled.size() == 1; }));
}

TEST_F(GenerateServiceTest, ActiveIdIsRefusedAndAFinishedOneMayComeAgain) {
  start(saying("x"));
  engine->hold();
  v1::GenerateRequest asked = request();
  asked.set_request_id("same");
  auto call_context = context();
  auto reader = stub->Generate(call_context.get(), asked);
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  const Stream second = generate(asked);
  EXPECT_EQ(second.status.error_code(), grpc::StatusCode::ALREADY_EXISTS);
  engine->let_go();
  EXPECT_TRUE(read_all(*reader).status.ok());
  EXPECT_TRUE(generate(asked).status.ok());
}

TEST_F(GenerateServiceTest, BadRequestsNameTheirFieldAndDisturbNobody) {
  start(saying("fine"));
  engine->hold();
  auto call_context = context();
  auto neighbour = stub->Generate(call_context.get(), request());
  v1::GenerateRequest asked = request();
  asked.mutable_sampling()->set_top_p(2);
  const Stream refused = generate(asked);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  const auto bad = rpc::bad_request(refused.status);
  ASSERT_TRUE(bad.has_value());
  EXPECT_EQ(bad->field_violations(0).field(), "sampling.top_p");
  EXPECT_EQ(generate({}).status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  engine->let_go();
  EXPECT_EQ(read_all(*neighbour).text, "fine");
}

TEST_F(GenerateServiceTest, FullQueueIsRefusedWithADelay) {
  LeaderOptions options;
  options.queue.max_requests = 1;
  FakeEngine::Script script = saying("x");
  script.max_running = 1;
  start(script, {}, options);
  engine->hold();
  auto first_context = context(), second_context = context();
  auto first = stub->Generate(first_context.get(), request());
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  const auto deadline = std::chrono::steady_clock::now() + seconds(10);
  while (leader->status().waiting.requests > 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  auto second = stub->Generate(second_context.get(), request());
  while (leader->status().waiting.requests < 1 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  const Stream third = generate(request());
  EXPECT_EQ(third.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(rpc::retry_info(third.status).has_value());
  engine->let_go();
  EXPECT_TRUE(read_all(*first).status.ok());
  EXPECT_TRUE(read_all(*second).status.ok());
}

TEST_F(GenerateServiceTest, NumericalErrorEndsThatRequestAlone) {
  FakeEngine::Script script;
  script.token = [](const Request&, int32_t n) { return nth_byte("abcdef", n); };
  script.finish = [](const Request& asked, int32_t n) {
    return asked.prompt[0] == '!' && n == 3 ? FinishReason::numerical_error : FinishReason::none;
  };
  start(script);
  const Stream broken = generate(request("!"));
  EXPECT_EQ(broken.status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_NE(broken.status.error_message().find("numerical error"), std::string::npos);
  EXPECT_EQ(broken.text, "abc");
  EXPECT_EQ(generate(request("fine")).text, "abcdef");
}

TEST_F(GenerateServiceTest, RequestTheEngineCannotHoldIsRefused) {
  FakeEngine::Script script = saying("x");
  script.accept = [](const Request&) { return absl::ResourceExhaustedError("the cache has 10 blocks"); };
  start(script);
  const Stream stream = generate(request());
  EXPECT_EQ(stream.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(stream.status.error_message(), "the cache has 10 blocks");
}

TEST_F(GenerateServiceTest, DrainingServerRefusesWithADelayAndFinishesWhatRuns) {
  start(saying("hello"));
  engine->hold();
  auto call_context = context();
  auto running = stub->Generate(call_context.get(), request());
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  leader->drain();
  const Stream refused = generate(request());
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(rpc::retry_info(refused.status).has_value());
  engine->let_go();
  EXPECT_EQ(read_all(*running).text, "hello");
}

TEST_F(GenerateServiceTest, BrokenEngineEndsStreamsAsUnavailable) {
  start(saying(std::string(1000, 'x')));
  engine->hold();
  auto call_context = context();
  auto reader = stub->Generate(call_context.get(), request());
  engine->permit(2);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  engine->break_next_step();
  engine->let_go();
  EXPECT_EQ(read_all(*reader).status.error_code(), grpc::StatusCode::UNAVAILABLE);
  leader_thread.join();
  EXPECT_TRUE(absl::IsInternal(leader_result));
}

TEST_F(GenerateServiceTest, TextGoesToTokensAndBack) {
  start(saying(""));
  v1::TokenizeRequest tokenize;
  tokenize.set_text("caf\xC3\xA9");
  v1::TokenizeResponse ids;
  ASSERT_TRUE(stub->Tokenize(context().get(), tokenize, &ids).ok());
  EXPECT_EQ(ids.token_ids_size(), 5);
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = ids.token_ids();
  v1::DetokenizeResponse text;
  ASSERT_TRUE(stub->Detokenize(context().get(), detokenize, &text).ok());
  EXPECT_EQ(text.text(), "caf\xC3\xA9");
  detokenize.add_token_ids(-1);
  const grpc::Status bad = stub->Detokenize(context().get(), detokenize, &text);
  ASSERT_TRUE(rpc::bad_request(bad).has_value());
  EXPECT_EQ(rpc::bad_request(bad)->field_violations(0).field(), "token_ids[5]");
  tokenize.set_text(std::string((1 << 20) + 1, 'x'));
  EXPECT_EQ(stub->Tokenize(context().get(), tokenize, &ids).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(GenerateServiceTest, GetModelTellsWhatIsServed) {
  model.defaults.do_sample = true;
  model.defaults.temperature = 0.7f;
  start(saying(""));
  v1::GetModelResponse response;
  ASSERT_TRUE(stub->GetModel(context().get(), {}, &response).ok());
  EXPECT_EQ(response.name(), "bytes");
  EXPECT_EQ(response.vocab_size(), kByteVocabSize);
  EXPECT_FLOAT_EQ(response.default_sampling().temperature(), 0.7f);
  EXPECT_EQ(response.eos_token_ids(0), kEndToken);
  EXPECT_EQ(response.num_replicas(), 1);
  v1::GetModelRequest other;
  other.set_model("other");
  EXPECT_EQ(stub->GetModel(context().get(), other, &response).error_code(), grpc::StatusCode::NOT_FOUND);
}

}  // namespace
}  // namespace trireme::worker
