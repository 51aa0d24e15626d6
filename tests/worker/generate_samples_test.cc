// Several samples of a prompt, and what another replica has begun.
#include <gtest/gtest.h>

#include <map>

#include "proto/support/errors.h"
#include "tests/worker/service_fixture.h"
#include "worker/generate_service.h"

namespace trireme::worker {
namespace {

class GenerateSamplesTest : public ServiceFixture {};

TEST_F(GenerateSamplesTest, ResumedAtEveryTokenTheStreamIsThatOfAnUnbrokenOne) {
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

TEST_F(GenerateSamplesTest, ResumedBehindTheEndIsRefused) {
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

TEST_F(GenerateSamplesTest, SamplesShareAStreamAndAUsage) {
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

TEST_F(GenerateSamplesTest, SamplesAreResumedEachWhereItWas) {
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

TEST_F(GenerateSamplesTest, CancelEndsEverySample) {
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

}  // namespace
}  // namespace trireme::worker
