// Text from real processes: the same whatever holds the model together.

#include <gtest/gtest.h>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {
namespace {

using nlohmann::json;

const std::vector<std::string> kPrompts = {"In the beginning", "And the king said", "The LORD is my"};

class GenerationE2eTest : public ServiceFixture {
 protected:
  /// Greedy token ids of each prompt.
  json tokens_of_prompts() {
    json result = json::array();
    for (const std::string& prompt : kPrompts) {
      const CommandResult run = generate({"--prompt", prompt, "--max-tokens", "64", "--ignore-eos"});
      EXPECT_EQ(run.exit_code, 0) << run.output;
      result.push_back(run.json.value("token_ids", json()));
    }
    return result;
  }

  /// The same, from a coordinator and one job of its own.
  json tokens_at(int tensor_parallel_size) {
    Process& coordinator = start_coordinator();
    Process& job =
        start_job(tensor_parallel_size, {"--tensor-parallel", std::to_string(tensor_parallel_size)});
    wait_serving(tensor_parallel_size);
    EXPECT_EQ(cluster().replicas(0).tensor_parallel_size(), tensor_parallel_size);
    const json result = tokens_of_prompts();
    EXPECT_EQ(stop(coordinator), 0);
    EXPECT_EQ(job.wait(deadline_in(20)), 0) << job.output();  // it has been told to stop
    return result;
  }
};

TEST_F(GenerationE2eTest, EveryTensorParallelSizeGivesTheSameGreedyTokens) {
  const json alone = tokens_at(1);
  ASSERT_EQ(alone.size(), kPrompts.size());
  for (const json& tokens : alone) ASSERT_EQ(tokens.size(), 64);
  EXPECT_NE(alone[0], alone[1]);
  for (const int size : {2, 4, 8}) EXPECT_EQ(tokens_at(size), alone) << "tensor parallel " << size;
}

TEST_F(GenerationE2eTest, PlainMpirunJoinsAndServes) {
  start_coordinator();
  start({"mpirun", "--oversubscribe", "-np", "4", program("trireme-worker"), "--coordinator", address(),
         "--model", demo_model()});
  wait_serving(4);
  const CommandResult run = generate({"--prompt", "In the beginning", "--max-tokens", "16", "--ignore-eos"});
  EXPECT_EQ(run.exit_code, 0) << run.output;
  EXPECT_EQ(run.json["token_ids"].size(), 16);
  EXPECT_EQ(run.json["finish_reason"], "length");
  EXPECT_EQ(run.json["usage"]["completion_tokens"], 16);
  EXPECT_EQ(run.json["usage"]["prompt_tokens"], run.json["prompt_token_ids"].size());
}

TEST_F(GenerationE2eTest, ALeaderServesWithoutCoordinatorAndWithoutMpirun) {
  set_address("127.0.0.1:" + std::to_string(free_port()));
  Process& worker = start({program("trireme-worker"), "--model", demo_model(), "--listen", address(),
                           "--threads", "1", "--compute-dtype", "f32", "--kv-memory", "64MiB"});
  wait_serving(1);
  const CommandResult status = run_trireme({"status", "--address", address(), "--json"});
  EXPECT_EQ(status.json["kind"], "leader") << status.output;
  EXPECT_EQ(status.json["health"], "SERVING");
  EXPECT_EQ(status.json["model"]["vocab_size"], 2048);
  const json tokens = tokens_of_prompts();
  EXPECT_EQ(stop(worker), 0);
  EXPECT_EQ(tokens, tokens_at(2));
}

TEST_F(GenerationE2eTest, ContextBeyondTheModelsIsAWrongFlagOnEveryRank) {
  Process& job = start({"mpirun", "--oversubscribe", "-np", "2", program("trireme-worker"), "--model",
                        demo_model(), "--max-context-len", "100000"});
  EXPECT_EQ(job.wait(deadline_in(30)), 64) << job.output();
  EXPECT_NE(job.output().find("--max-context-len: got 100000, wanted at most the model's"), std::string::npos)
      << job.output();
}

TEST_F(GenerationE2eTest, StreamedTextIsThePromptContinued) {
  start_coordinator();
  start_job(2);
  wait_serving(2);
  const CommandResult json_run = generate({"--prompt", "And the king said", "--max-tokens", "24"});
  const CommandResult text_run = run_trireme({"generate", "--address", address(), "--temperature", "0",
                                              "--prompt", "And the king said", "--max-tokens", "24"});
  ASSERT_EQ(text_run.exit_code, 0) << text_run.output;
  EXPECT_NE(text_run.output.find(json_run.json["text"].get<std::string>()), std::string::npos)
      << text_run.output;
  EXPECT_NE(text_run.output.find("tokens/s"), std::string::npos) << text_run.output;
}

TEST_F(GenerationE2eTest, SeededSamplingRepeatsItselfAndSeedsDiffer) {
  start_coordinator();
  start_job(2);
  wait_serving(2);
  const auto sample = [this](const char* seed) {
    const CommandResult run =
        generate({"--prompt", "In the beginning", "--max-tokens", "32", "--ignore-eos", "--temperature",
                  "1.0", "--top-k", "50", "--top-p", "0.95", "--seed", seed});
    EXPECT_EQ(run.exit_code, 0) << run.output;
    return run.json["token_ids"];
  };
  const json first = sample("7");
  EXPECT_EQ(sample("7"), first);
  EXPECT_NE(sample("8"), first);
}

TEST_F(GenerationE2eTest, PenaltiesBiasesAndLogprobsTravelFromTheCommandToTheModelAndBack) {
  start_coordinator();
  start_job(2);
  wait_serving(2);
  const std::vector<std::string> plain = {"--prompt", "In the beginning", "--max-tokens", "24"};
  const auto run = [&](std::vector<std::string> more) {
    std::vector<std::string> arguments = plain;
    arguments.insert(arguments.end(), more.begin(), more.end());
    const CommandResult result = generate(arguments);
    EXPECT_EQ(result.exit_code, 0) << result.output;
    return result.json;
  };
  const json greedy = run({"--ignore-eos", "--logprobs", "3", "--prompt-logprobs", "2"});
  ASSERT_EQ(greedy["logprobs"].size(), 24u);
  for (size_t i = 0; i < 24; ++i) {
    const json& token = greedy["logprobs"][i];
    EXPECT_EQ(token["token_id"], greedy["token_ids"][i]);
    ASSERT_EQ(token["top"].size(), 3u);
    EXPECT_EQ(token["top"][0]["token_id"], token["token_id"]);  // greedy takes the most likely
    EXPECT_EQ(token["top"][0]["logprob"], token["logprob"]);
    EXPECT_GE(token["top"][1]["logprob"], token["top"][2]["logprob"]);
    EXPECT_LE(token["logprob"], 0);
  }
  ASSERT_EQ(greedy["prompt_logprobs"].size(), greedy["prompt_token_ids"].size());
  EXPECT_TRUE(greedy["prompt_logprobs"][0].is_null());
  EXPECT_EQ(greedy["prompt_logprobs"][1]["token_id"], greedy["prompt_token_ids"][1]);
  EXPECT_EQ(greedy["prompt_logprobs"][1]["top"].size(), 2u);
  // Again, with the prompt in the cache now: the same numbers.
  const json again = run({"--ignore-eos", "--logprobs", "3", "--prompt-logprobs", "2"});
  EXPECT_EQ(again["logprobs"], greedy["logprobs"]);
  EXPECT_EQ(again["prompt_logprobs"], greedy["prompt_logprobs"]);

  const std::string first = std::to_string(greedy["token_ids"][0].get<int>());
  EXPECT_NE(run({"--logit-bias", first + "=-100"})["token_ids"][0], greedy["token_ids"][0]);
  const json biased = run({"--logit-bias", "77=1000", "--min-tokens", "24"});
  EXPECT_EQ(biased["token_ids"], json(std::vector<int>(24, 77)));
  const json penalized = run({"--logit-bias", "77=30", "--presence-penalty", "2", "--frequency-penalty", "2",
                              "--ignore-eos", "--logprobs", "0"});
  EXPECT_EQ(penalized["token_ids"][0], 77);
  EXPECT_NE(penalized["token_ids"], json(std::vector<int>(24, 77)));  // the penalties outweigh it
  EXPECT_TRUE(penalized["logprobs"][0]["top"].empty());
  const json repeated = run({"--repetition-penalty", "10", "--ignore-eos"});
  EXPECT_NE(repeated["token_ids"], greedy["token_ids"]);
}

TEST_F(GenerationE2eTest, BadRequestsNameTheirFieldAndDisturbNobody) {
  start_coordinator();
  start_job(2);
  wait_serving(2);
  const json before = tokens_of_prompts();
  struct Case {
    std::vector<std::string> arguments;
    std::string field;
  };
  const std::vector<Case> cases = {
      {{"--prompt", ""}, "text"},
      {{"--prompt-ids", "1,2,5000"}, "token_ids"},
      {{"--prompt-ids", "-1"}, "token_ids"},
      {{"--prompt", "x", "--temperature", "-1"}, "temperature"},
      {{"--prompt", "x", "--temperature", "nan"}, "temperature"},
      {{"--prompt", "x", "--top-p", "1.5"}, "top_p"},
      {{"--prompt", "x", "--max-tokens", "0"}, "max_tokens"},
      {{"--prompt", "x", "--max-tokens", "100000"}, "max_tokens"},
      {{"--prompt", "x", "--repetition-penalty", "0"}, "repetition_penalty"},
      {{"--prompt", "x", "--presence-penalty", "2.1"}, "presence_penalty"},
      {{"--prompt", "x", "--frequency-penalty", "nan"}, "frequency_penalty"},
      {{"--prompt", "x", "--logit-bias", "5000=1"}, "logit_bias"},
      {{"--prompt", "x", "--logit-bias", "5=inf"}, "logit_bias"},
      {{"--prompt", "x", "--min-tokens", "9", "--max-tokens", "8"}, "min_tokens"},
      {{"--prompt", "x", "--logprobs", "21"}, "logprobs"},
      {{"--prompt", "x", "--prompt-logprobs", "-1"}, "prompt_logprobs"},
  };
  for (const Case& c : cases) {
    const CommandResult run = generate(c.arguments);
    EXPECT_EQ(run.exit_code, 2) << run.output;
    EXPECT_EQ(run.json["error"]["code"], "INVALID_ARGUMENT") << run.output;
    EXPECT_NE(run.json["error"].value("field", "").find(c.field), std::string::npos) << run.output;
  }
  const CommandResult unknown = generate({"--prompt", "x", "--model", "another"});
  EXPECT_EQ(unknown.json["error"]["code"], "NOT_FOUND") << unknown.output;
  EXPECT_EQ(tokens_of_prompts(), before);
}

}  // namespace
}  // namespace trireme::testing
