// Random requests, cancels and steps on caches of a few blocks: whatever happens, every request gives what it
// would give alone, nothing leaks, nothing starves.

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "tests/engine/scheduler/simulation.h"
#include "tests/testing/property.h"

namespace trireme {
namespace {

// One operation. Shrinks towards {0, 0, 0}, which adds the smallest request.
struct Operation {
  int kind = 0;
  int first = 0;
  int second = 0;
};

void showValue(const Operation& operation, std::ostream& os) {
  os << "{" << operation.kind << ", " << operation.first << ", " << operation.second << "}";
}

// RapidCheck narrows every range in the first, small cases. Here only the number of operations grows.
template <typename T>
rc::Gen<T> full(rc::Gen<T> gen) {
  return rc::gen::resize(rc::kNominalSize, std::move(gen));
}

int any_of(int first, int last) { return *full(rc::gen::inRange(first, last + 1)); }

std::vector<Operation> any_operations() {
  const auto number = full(rc::gen::inRange(0, 10000));
  const auto operation = rc::gen::build<Operation>(
      rc::gen::set(&Operation::kind, full(rc::gen::inRange(0, 20))), rc::gen::set(&Operation::first, number),
      rc::gen::set(&Operation::second, number));
  return *rc::gen::scale(1.5, rc::gen::container<std::vector<Operation>>(operation));
}

SchedulerConfig any_config() {
  SchedulerConfig config;
  config.max_num_seqs = any_of(1, 6);
  config.max_step_tokens = any_of(1, 24);
  config.max_context_len = any_of(4, 48);
  config.block_size = any_of(1, 5);
  config.num_blocks = any_of(1, 30);
  config.vocab_size = any_of(3, 30);  // two ids may be stops, and min_tokens needs another
  config.enable_prefix_cache = any_of(0, 3) != 0;
  config.ageing_steps = any_of(1, 20);
  return config;
}

// Prompts are beginnings of few streams, so that prefixes are often shared, with now and then another end.
Request request_from(const SchedulerConfig& config, const Operation& operation) {
  Request request;
  const int stream = operation.first % 3;
  const int num_tokens = 1 + operation.first / 3 % (config.max_context_len - 1);
  for (int i = 0; i < num_tokens; ++i) request.prompt.push_back((stream + i * i) % config.vocab_size);
  if (operation.first % 7 == 0) request.prompt.back() = operation.second % config.vocab_size;
  request.sampling.seed = operation.second % 2;  // equal requests give equal outputs, and share those too
  request.stopping.max_tokens = 1 + operation.second % (config.max_context_len - num_tokens);
  request.stopping.min_tokens = operation.second % 5;
  if (operation.second % 3 == 0) request.stopping.stop_token_ids = {0, 1};
  request.priority = operation.second % 4 - 1;
  request.cache_salt = operation.second % 11 == 0;
  if (operation.second % 2 == 0) request.sampling.presence_penalty = 1;
  if (operation.first % 3 == 0) request.output.num_prompt_logprobs = operation.second % 6;
  return request;
}

// Up to three samples of one prompt. Some were begun elsewhere, and are cut where it pleases.
void add(Simulation& simulation, const SchedulerConfig& config, const FakeModelConfig& model,
         const Operation& operation) {
  const uint32_t num_samples = operation.first % 4 == 0 ? 1 + operation.second % 3 : 1;
  const RequestHandle group = simulation.last_handle() + 1;
  for (uint32_t i = 0; i < num_samples; ++i) {
    Request request = request_from(config, operation);
    request.sampling.sample_index = i;
    request.prompt_group = num_samples > 1 ? group : 0;
    const std::vector<int32_t> whole = run_alone(model, request).tokens;
    if (operation.first % 5 == 1 && !whole.empty())
      request.resumed_outputs.assign(whole.begin(), whole.begin() + (operation.second + i) % whole.size());
    const absl::Status status = simulation.add(request);
    RC_ASSERT(status.ok() || absl::IsResourceExhausted(status));
  }
}

void run(Simulation& simulation, const SchedulerConfig& config, const FakeModelConfig& model,
         const std::vector<Operation>& operations, int cancels_of_20) {
  for (const Operation& operation : operations) {
    if (operation.kind < cancels_of_20) {
      require_ok(simulation.cancel(1 + operation.first % (simulation.last_handle() + 1)));
    } else if (operation.kind < 12) {
      add(simulation, config, model, operation);
    } else {
      for (int i = 0; i <= operation.first % 4; ++i) require_ok(simulation.step());
    }
  }
  require_ok(simulation.drain());
}

void classify(const Simulation& simulation, const SchedulerStats& stats) {
  RC_CLASSIFY(stats.preemptions > 0, "preempted");
  RC_CLASSIFY(stats.cached_prompt_tokens > 0, "shared a prefix");
  RC_CLASSIFY(simulation.records().size() > 5, "more than five requests");
  RC_CLASSIFY(std::any_of(simulation.records().begin(), simulation.records().end(),
                          [](const auto& entry) { return !entry.second.request.resumed_outputs.empty(); }),
              "resumed");
  RC_CLASSIFY(std::any_of(simulation.records().begin(), simulation.records().end(),
                          [](const auto& entry) { return entry.second.request.prompt_group != 0; }),
              "several samples");
  RC_CLASSIFY(std::any_of(simulation.records().begin(), simulation.records().end(),
                          [](const auto& entry) { return entry.second.prompt_logprobs != nullptr; }),
              "gave prompt logprobs");
}

RC_GTEST_PROP(SchedulerPropertyTest, EveryRequestGivesWhatItGivesAlone, ()) {
  const SchedulerConfig config = any_config();
  const FakeModelConfig model{config.vocab_size, 0};
  Simulation simulation(config, model);
  run(simulation, config, model, any_operations(), /*cancels_of_20=*/1);
  classify(simulation, simulation.scheduler().stats());
}

RC_GTEST_PROP(SchedulerPropertyTest, SoItDoesWithSeveralPlansUnderWay, ()) {
  const SchedulerConfig config = any_config();
  const FakeModelConfig model{config.vocab_size, 0};
  Simulation simulation(config, model, /*max_plans=*/any_of(2, 4));
  run(simulation, config, model, any_operations(), /*cancels_of_20=*/2);
  classify(simulation, simulation.scheduler().stats());
}

RC_GTEST_PROP(SchedulerPropertyTest, NumericalErrorsEndOnlyTheirRequest, ()) {
  const SchedulerConfig config = any_config();
  const FakeModelConfig model{config.vocab_size, 13};
  Simulation simulation(config, model, /*max_plans=*/any_of(1, 3));
  run(simulation, config, model, any_operations(), /*cancels_of_20=*/1);
}

RC_GTEST_PROP(SchedulerPropertyTest, CancelsByTheThousandLeaveNothingBehind, ()) {
  const SchedulerConfig config = any_config();
  const FakeModelConfig model{config.vocab_size, 0};
  Simulation simulation(config, model, /*max_plans=*/any_of(1, 2));
  run(simulation, config, model, any_operations(), /*cancels_of_20=*/8);
}

}  // namespace
}  // namespace trireme
