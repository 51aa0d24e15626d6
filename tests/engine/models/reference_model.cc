#include "tests/engine/models/reference_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "tests/testing/mpi_main.h"

namespace trireme::testing {

std::vector<std::string> reference_names() {
  std::vector<std::string> names;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(TRIREME_TEST_DATA) + "/references")) {
    names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

Reference load_reference(const std::string& name) {
  Reference reference;
  reference.dir = std::string(TRIREME_TEST_DATA) + "/references/" + name;
  const auto json = nlohmann::json::parse(std::ifstream(reference.dir + "/reference.json"));
  json.at("prompt_ids").get_to(reference.prompt_ids);
  json.at("greedy_ids").get_to(reference.greedy_ids);
  json.at("positions").get_to(reference.positions);
  json.at("logits").get_to(reference.logits);
  json.at("max_context_len").get_to(reference.max_context_len);
  json.at("max_abs_logit").get_to(reference.max_abs_logit);
  return reference;
}

EngineConfig reference_engine_config(const Reference& reference) {
  EngineConfig config;
  config.model_dir = reference.dir;
  config.model = value_or_die(load_model_config(reference.dir + "/config.json"));
  config.backend = "cpu";
  config.compute_dtype = "f32";
  config.num_threads = 1;
  config.max_context_len = reference.max_context_len;
  config.max_num_seqs = 16;
  config.max_step_tokens = 64;
  config.block_size = 8;
  return config;
}

Request greedy_request(RequestHandle handle, std::vector<int32_t> prompt, int max_tokens) {
  Request request;
  request.handle = handle;
  request.prompt = std::move(prompt);
  request.stopping.max_tokens = max_tokens;
  request.stopping.ignore_eos = true;
  return request;
}

std::map<RequestHandle, std::vector<TokenOutput>> generate(const EngineConfig& config,
                                                           std::vector<Request> requests,
                                                           SchedulerStats* stats) {
  auto engine = value_or_die(Engine::create(config, world()));
  std::map<RequestHandle, std::vector<TokenOutput>> by_handle;
  if (world().rank() != 0) {
    while (value_or_die(engine->follow(std::chrono::seconds(60)))) {
    }
    return by_handle;
  }
  for (Request& request : requests) or_die(engine->submit(std::move(request)));
  std::vector<TokenOutput> outputs;
  while (engine->has_work()) {
    outputs.clear();
    CHECK_EQ(value_or_die(engine->step(outputs)), true);
    for (const TokenOutput& output : outputs) by_handle[output.handle].push_back(output);
  }
  or_die(engine->broadcast_stop());
  or_die(engine->check_integrity());
  if (stats != nullptr) *stats = engine->stats();
  return by_handle;
}

HandLoaded::HandLoaded(const EngineConfig& config) : rank_(value_or_die(load_rank(config, world()))) {}

std::vector<std::vector<float>> HandLoaded::logits(const std::vector<int32_t>& ids,
                                                   const std::vector<int32_t>& positions) {
  StepPhases phases;
  StepProgress progress;
  auto runner = value_or_die(ModelRunner::create(rank_.runner, *rank_.backend, *rank_.group, *rank_.model,
                                                 *rank_.cache, phases, progress));
  const int32_t block_size = rank_.runner.limits.block_size;
  std::vector<std::vector<float>> all;
  int32_t begin = 0;
  for (int32_t position : positions) {
    // No step may be longer than the limit, so a chunk may take several; only its last token is sampled.
    while (begin <= position) {
      const int32_t end = std::min(position + 1, begin + rank_.runner.limits.max_num_tokens);
      StepPlan plan;
      plan.slots = {0};
      plan.query_lens = {end - begin};
      plan.context_lens = {end};
      plan.num_blocks = {(end + block_size - 1) / block_size};
      for (int32_t block = 0; block < plan.num_blocks[0]; ++block) plan.block_tables.push_back(block);
      plan.token_ids.assign(ids.begin() + begin, ids.begin() + end);
      plan.sample = {end == position + 1 ? 1 : 0};
      if (plan.sample[0] != 0) plan.sampling.emplace_back();
      runner->run(plan);
      begin = end;
    }
    if (world().rank() == 0) all.push_back(runner->last_logits());
  }
  return all;
}

float largest_difference(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float largest = 0;
  if (a.size() != b.size()) return kInfinity;
  for (size_t row = 0; row < a.size(); ++row) {
    if (a[row].size() != b[row].size()) return kInfinity;
    for (size_t i = 0; i < a[row].size(); ++i) {
      const float difference = std::fabs(a[row][i] - b[row][i]);
      if (!(difference <= largest)) largest = std::isnan(difference) ? kInfinity : difference;
    }
  }
  return largest;
}

}  // namespace trireme::testing
