#include "worker/generate_service.h"

#include <gtest/gtest.h>

#include <future>
#include <map>
#include <thread>

#include "proto/support/errors.h"
#include "tests/worker/service_fixture.h"

namespace trireme::worker {
namespace {

using std::chrono::seconds;

class GenerateServiceTest : public ServiceFixture {
 protected:
  /// A held engine goes on step by step until it is told to cancel.
  bool step_until_cancelled() {
    const auto deadline = std::chrono::steady_clock::now() + seconds(10);
    while (engine->counts().cancelled.empty() && std::chrono::steady_clock::now() < deadline) {
      engine->permit(1);
      std::this_thread::yield();
    }
    return engine->counts().cancelled.size() == 1;
  }
};

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

TEST_F(GenerateServiceTest, ResumedAtEveryTokenTheStreamIsThatOfAnUnbrokenOne) {
  start(saying("hello ENworld caf\xC3\xA9 END"));
  v1::GenerateRequest asked = request("abc");
  asked.mutable_stopping()->add_stop("END");
  const Stream whole = generate(asked);
  ASSERT_TRUE(whole.status.ok()) << whole.status.error_message();
  // What a relay has passed on when it has read so many tokens.
  engine->hold();
  for (size_t cut = 0; cut < whole.token_ids.size(); ++cut) {
    std::string passed_on;
    size_t num_tokens = 0;
    {
      auto call_context = context();
      auto reader = stub->Generate(call_context.get(), asked);
      for (v1::GenerateResponse message; num_tokens < cut; message.Clear()) {
        engine->permit(1);
        ASSERT_TRUE(reader->Read(&message));
        for (const v1::Delta& delta : message.deltas()) {
          passed_on += delta.text();
          num_tokens += static_cast<size_t>(delta.token_ids_size());
        }
      }
      call_context->TryCancel();
    }
    engine->let_go();
    v1::GenerateRequest again = asked;
    again.mutable_resume()->Clear();
    again.add_resume()->mutable_token_ids()->Add(whole.token_ids.begin(),
                                                 whole.token_ids.begin() + num_tokens);
    const Stream second = generate(again);
    ASSERT_TRUE(second.status.ok()) << second.status.error_message();
    EXPECT_TRUE(second.messages.front().has_prompt());
    EXPECT_EQ(passed_on + second.text, whole.text) << "resumed after " << num_tokens;
    EXPECT_EQ(num_tokens + second.token_ids.size(), whole.token_ids.size());
    EXPECT_EQ(second.finish_reason, whole.finish_reason);
    EXPECT_EQ(second.messages.back().usage().completion_tokens(),
              whole.messages.back().usage().completion_tokens());
    engine->hold();
  }
  engine->let_go();
}

TEST_F(GenerateServiceTest, ResumedBehindTheEndIsRefused) {
  start(saying("x"));
  v1::GenerateRequest asked = request("abc");
  v1::ResumeState* state = asked.add_resume();
  for (const int32_t id : {int{'a'}, kEndToken, int{'b'}}) state->add_token_ids(id);
  const auto bad = rpc::bad_request(generate(asked).status);
  ASSERT_TRUE(bad);
  EXPECT_EQ(bad->field_violations(0).field(), "resume[0].token_ids[2]");
  state->mutable_token_ids()->Truncate(2);
  const Stream stream = generate(asked);
  EXPECT_TRUE(stream.status.ok()) << stream.status.error_message();
  EXPECT_EQ(stream.finish_reason, v1::FINISH_REASON_STOP);
  EXPECT_TRUE(stream.token_ids.empty());
  EXPECT_EQ(stream.messages.back().usage().completion_tokens(), 2);
  EXPECT_TRUE(engine->counts().submitted.empty());
}

/// What sample `index` of a stream said.
struct Sample {
  std::string text;
  std::vector<int32_t> token_ids;
  v1::FinishReason finish_reason = v1::FINISH_REASON_UNSPECIFIED;
};
std::map<int, Sample> samples_of(const std::vector<v1::GenerateResponse>& messages) {
  std::map<int, Sample> samples;
  for (const v1::GenerateResponse& message : messages) {
    for (const v1::Delta& delta : message.deltas()) {
      Sample& sample = samples[delta.index()];
      EXPECT_EQ(sample.finish_reason, v1::FINISH_REASON_UNSPECIFIED);
      sample.text += delta.text();
      sample.token_ids.insert(sample.token_ids.end(), delta.token_ids().begin(), delta.token_ids().end());
      if (delta.has_finish_reason()) sample.finish_reason = delta.finish_reason();
    }
  }
  return samples;
}

FakeEngine::Script saying_by_sample(std::vector<std::string> texts) {
  FakeEngine::Script script;
  script.token = [texts = std::move(texts)](const Request& asked, int32_t n) {
    return nth_byte(texts[asked.sampling.sample_index], n);
  };
  return script;
}

TEST_F(GenerateServiceTest, SamplesShareAStreamAndAUsage) {
  start(saying_by_sample({"one", "a second STOP and more", "third"}));
  v1::GenerateRequest asked = request("abc");
  asked.mutable_output()->set_n(3);
  asked.mutable_stopping()->add_stop("STOP");
  const Stream stream = generate(asked);
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  std::map<int, Sample> samples = samples_of(stream.messages);
  ASSERT_EQ(samples.size(), 3u);
  EXPECT_EQ(samples[0].text, "one");
  EXPECT_EQ(samples[1].text, "a second ");
  EXPECT_EQ(samples[2].text, "third");
  for (const auto& [index, sample] : samples) EXPECT_EQ(sample.finish_reason, v1::FINISH_REASON_STOP);
  const v1::Usage& usage = stream.messages.back().usage();
  EXPECT_EQ(usage.prompt_tokens(), 3);
  EXPECT_EQ(usage.completion_tokens(), 4 + 13 + 6);

  auto call_context = context();
  v1::GenerateOnceResponse once;
  ASSERT_TRUE(stub->GenerateOnce(call_context.get(), asked, &once).ok());
  ASSERT_EQ(once.completions_size(), 3);
  EXPECT_EQ(once.completions(1).text(), "a second ");
  EXPECT_EQ(once.usage().completion_tokens(), 4 + 13 + 6);
}

TEST_F(GenerateServiceTest, SamplesAreResumedEachWhereItWas) {
  start(saying_by_sample({"one", "second", "third", "fourth"}));
  v1::GenerateRequest asked = request("abc");
  asked.mutable_output()->set_n(4);
  const auto resume = [&asked](int index, const std::string& text, bool finished) {
    v1::ResumeState* state = asked.add_resume();
    state->set_index(index);
    state->set_finished(finished);
    for (const char c : text) state->add_token_ids(static_cast<unsigned char>(c));
  };
  resume(2, "thi", false);
  resume(1, "second", true);
  resume(3, "four", false);
  asked.mutable_resume(2)->add_token_ids(kEndToken);
  const Stream stream = generate(asked);
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  std::map<int, Sample> samples = samples_of(stream.messages);
  EXPECT_EQ(samples.count(1), 0u);
  EXPECT_EQ(samples[0].text, "one");
  EXPECT_EQ(samples[2].text, "rd");
  EXPECT_EQ(samples[3].text, "");
  EXPECT_TRUE(samples[3].token_ids.empty());
  EXPECT_EQ(samples[3].finish_reason, v1::FINISH_REASON_STOP);
  EXPECT_EQ(stream.messages.back().usage().completion_tokens(), 4 + 6 + 6 + 5);
}

TEST_F(GenerateServiceTest, CancelEndsEverySample) {
  start(saying_by_sample(std::vector<std::string>(3, std::string(100000, 'x'))));
  v1::GenerateRequest asked = request("abc");
  asked.set_request_id("three");
  asked.mutable_output()->set_n(3);
  engine->hold();
  engine->permit(1);
  auto call_context = context();
  auto reader = stub->Generate(call_context.get(), asked);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  v1::CancelRequest cancel;
  cancel.set_request_id("three");
  v1::CancelResponse cancelled;
  ASSERT_TRUE(stub->Cancel(context().get(), cancel, &cancelled).ok());
  engine->let_go();
  const Stream stream = read_all(*reader);
  ASSERT_TRUE(stream.status.ok()) << stream.status.error_message();
  const std::map<int, Sample> samples = samples_of(stream.messages);
  ASSERT_EQ(samples.size(), 3u);
  for (const auto& [index, sample] : samples) EXPECT_EQ(sample.finish_reason, v1::FINISH_REASON_CANCELLED);
  EXPECT_FALSE(engine->has_work());
}

TEST_F(GenerateServiceTest, CancelEndsTheStreamInGoodOrder) {
  start(saying(std::string(100000, 'x')));
  engine->hold();
  v1::GenerateRequest asked = request();
  asked.set_request_id("victim");
  auto call_context = context();
  auto reader = stub->Generate(call_context.get(), asked);
  engine->permit(2);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  v1::CancelRequest cancel;
  cancel.set_request_id("victim");
  v1::CancelResponse cancelled;
  ASSERT_TRUE(stub->Cancel(context().get(), cancel, &cancelled).ok());
  engine->permit(1);
  const Stream stream = read_all(*reader);
  EXPECT_TRUE(stream.status.ok());
  EXPECT_EQ(stream.finish_reason, v1::FINISH_REASON_CANCELLED);
  EXPECT_TRUE(stream.messages.back().has_usage());
  EXPECT_LE(stream.messages.back().usage().completion_tokens(), 3);
  // Once more, and for one that never was: nothing happens.
  EXPECT_TRUE(stub->Cancel(context().get(), cancel, &cancelled).ok());
  cancel.set_request_id("nobody");
  EXPECT_TRUE(stub->Cancel(context().get(), cancel, &cancelled).ok());
}

TEST_F(GenerateServiceTest, ClientThatLeavesIsCancelledWithinAStep) {
  start(saying(std::string(100000, 'x')));
  engine->hold();
  auto call_context = context();
  auto reader = stub->Generate(call_context.get(), request());
  engine->permit(1);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  call_context->TryCancel();
  reader->Finish();
  EXPECT_TRUE(step_until_cancelled());
  EXPECT_FALSE(engine->has_work());
}

TEST_F(GenerateServiceTest, PassedDeadlineFreesTheRequest) {
  start(saying(std::string(1 << 20, 'x')));
  engine->hold();
  auto call_context = std::make_unique<grpc::ClientContext>();
  call_context->set_deadline(gpr_time_from_millis(1000, GPR_TIMESPAN));
  auto reader = stub->Generate(call_context.get(), request());
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  EXPECT_EQ(read_all(*reader).status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(step_until_cancelled());
  EXPECT_FALSE(engine->has_work());
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

TEST_F(GenerateServiceTest, ReaderThatNeverReadsLosesItsRequestAndNobodyElse) {
  GenerateServiceOptions options;
  options.max_unread_bytes = 128 << 10;  // enough for all that the neighbour gets
  FakeEngine::Script script = saying(std::string(1 << 22, 'x'));
  script.tokens_per_step = 64;
  start(script, options);
  engine->hold();
  v1::GenerateRequest asked = request("deaf", 1 << 23);
  asked.mutable_output()->set_logprobs(0);  // large messages: gRPC itself takes some megabytes
  auto deaf_context = context(60);
  auto deaf = stub->Generate(deaf_context.get(), asked);
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  auto call_context = context(60);
  auto neighbour = stub->Generate(call_context.get(), request("other", 1000));
  engine->let_go();
  EXPECT_EQ(read_all(*neighbour).text.size(), 1000u);
  EXPECT_TRUE(engine->wait_for([](const auto& counts) { return counts.cancelled.size() == 1; }));
  EXPECT_EQ(read_all(*deaf).status.error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GenerateServiceTest, WriteThatIsNotTakenInTimeEndsItsRequestAlone) {
  GenerateServiceOptions options;
  options.max_unread_bytes = 1 << 30;
  options.write_timeout = std::chrono::milliseconds(200);
  FakeEngine::Script script = saying("abcdef");
  script.finish = [](const Request& asked, int32_t n) {
    return asked.prompt[0] == 'd' || n < 1000 ? FinishReason::none : FinishReason::stop;
  };
  script.token = [](const Request&, int32_t n) { return nth_byte("abcdef", n % 6); };
  script.tokens_per_step = 64;
  start(script, options);
  v1::GenerateRequest asked = request("deaf", 1 << 23);
  asked.mutable_output()->set_logprobs(0);
  auto deaf_context = context(60);
  auto deaf = stub->Generate(deaf_context.get(), asked);
  EXPECT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  EXPECT_TRUE(generate(request("other", 1 << 20)).status.ok());
  EXPECT_TRUE(engine->wait_for([](const auto& counts) { return counts.cancelled.size() == 1; }));
  EXPECT_EQ(read_all(*deaf).status.error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GenerateServiceTest, LastWriteThatIsNotTakenInTimeEndsTheCallToo) {
  GenerateServiceOptions options;
  options.max_unread_bytes = 1 << 30;
  options.write_timeout = std::chrono::milliseconds(200);
  FakeEngine::Script script;
  script.token = [](const Request&, int32_t n) { return 'a' + n % 26; };
  script.tokens_per_step = 64;
  start(script, options);
  v1::GenerateRequest asked = request("deaf", 1 << 19);
  asked.set_request_id("deaf");
  asked.mutable_output()->set_logprobs(0);  // more bytes than gRPC and the sockets hold
  auto deaf_context = context(60);
  auto deaf = stub->Generate(deaf_context.get(), asked);
  ASSERT_TRUE(engine->wait_for([](const auto& counts) { return counts.submitted.size() == 1; }));
  // From here on no token comes: what ends the call is its own time limit. Its id is free then.
  v1::GenerateRequest same = request("x", 1);
  same.set_request_id("deaf");
  const auto deadline = std::chrono::steady_clock::now() + seconds(30);
  while (!generate(same).status.ok() && std::chrono::steady_clock::now() < deadline)
    std::this_thread::yield();
  EXPECT_EQ(read_all(*deaf).status.error_code(), grpc::StatusCode::CANCELLED);
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
