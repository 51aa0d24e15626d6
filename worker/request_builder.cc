#include "worker/request_builder.h"

#include <algorithm>
#include <random>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"
#include "proto/support/request_fields.h"

namespace trireme::worker {

namespace {

constexpr int32_t kDefaultMaxTokens = 16;

grpc::Status check_fields(const RequestFields& fields, const ServedModel& model) {
  const auto violation = validate(fields, model.limits());
  return violation ? rpc::invalid_field(violation->field, violation->description) : grpc::Status::OK;
}

grpc::Status encode(RequestFields& fields, const Tokenizer& tokenizer) {
  auto ids = tokenizer.encode(fields.text, /*add_special_tokens=*/true);
  // A text that exceeds a pattern's limits will do so again: it is the text that is wrong.
  if (!ids.ok())
    return rpc::invalid_field("text", absl::StrCat("cannot be tokenized: ", ids.status().message()));
  if (ids->empty()) return rpc::invalid_field("text", "gives no tokens; at least one is needed");
  fields.token_ids = *std::move(ids);
  return grpc::Status::OK;
}

uint64_t draw_seed() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return random();
}

SamplingParams resolve_sampling(const AdmittedRequest& admitted, const GenerationDefaults& defaults) {
  const RequestFields& fields = admitted.fields;
  SamplingParams sampling = default_sampling(defaults);
  sampling.temperature = fields.temperature.value_or(sampling.temperature);
  sampling.top_k = fields.top_k.value_or(sampling.top_k);
  sampling.top_p = fields.top_p.value_or(sampling.top_p);
  sampling.min_p = fields.min_p.value_or(sampling.min_p);
  sampling.repetition_penalty = fields.repetition_penalty.value_or(sampling.repetition_penalty);
  sampling.presence_penalty = fields.presence_penalty.value_or(0);
  sampling.frequency_penalty = fields.frequency_penalty.value_or(0);
  sampling.logit_bias = fields.logit_bias;
  sampling.seed = admitted.seed ? *admitted.seed : draw_seed();
  return sampling;
}

StoppingParams resolve_stopping(const AdmittedRequest& admitted, const ServedModel& model) {
  const RequestFields& fields = admitted.fields;
  StoppingParams stopping;
  const int32_t left = model.max_context_len - static_cast<int32_t>(fields.token_ids.size());
  stopping.min_tokens = fields.min_tokens.value_or(0);
  // An unset max_tokens must not contradict min_tokens.
  stopping.max_tokens =
      fields.max_tokens.value_or(std::min(left, std::max(kDefaultMaxTokens, stopping.min_tokens)));
  stopping.ignore_eos = admitted.ignore_eos;
  stopping.stop_token_ids = fields.stop_token_ids;
  if (!stopping.ignore_eos) {
    stopping.stop_token_ids.insert(stopping.stop_token_ids.end(), model.eos_token_ids.begin(),
                                   model.eos_token_ids.end());
  }
  return stopping;
}

}  // namespace

SamplingParams default_sampling(const GenerationDefaults& defaults) {
  SamplingParams sampling;
  sampling.temperature = defaults.do_sample ? defaults.temperature.value_or(1.0f) : 0.0f;
  sampling.top_k = defaults.top_k.value_or(sampling.top_k);
  sampling.top_p = defaults.top_p.value_or(sampling.top_p);
  sampling.min_p = defaults.min_p.value_or(sampling.min_p);
  sampling.repetition_penalty = defaults.repetition_penalty.value_or(sampling.repetition_penalty);
  return sampling;
}

grpc::Status check_model(const std::string& asked, const ServedModel& model) {
  if (asked.empty() || asked == model.name) return grpc::Status::OK;
  return rpc::unknown_resource("model", asked,
                               absl::StrCat("unknown model; this server serves ", model.name));
}

grpc::Status admit(const v1::GenerateRequest& message, const ServedModel& model, AdmittedRequest& admitted) {
  if (auto status = check_model(message.model(), model); !status.ok()) return status;
  admitted.fields = rpc::request_fields(message);
  if (auto status = check_fields(admitted.fields, model); !status.ok()) return status;
  if (admitted.fields.has_text && model.tokenizer == nullptr) {
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                        "text: this server has no tokenizer (dummy weights); send token_ids");
  }
  if (message.sampling().has_seed()) admitted.seed = message.sampling().seed();
  admitted.ignore_eos = message.stopping().ignore_eos();
  admitted.include_special_tokens = message.output().include_special_tokens();
  admitted.priority = message.priority();
  return grpc::Status::OK;
}

grpc::Status build_request(AdmittedRequest& admitted, const ServedModel& model, Request& request) {
  RequestFields& fields = admitted.fields;
  if (fields.has_text) {
    if (auto status = encode(fields, *model.tokenizer); !status.ok()) return status;
    if (auto status = check_fields(fields, model); !status.ok()) return status;
  }
  request.sampling = resolve_sampling(admitted, model.defaults);
  request.stopping = resolve_stopping(admitted, model);
  request.output.num_top_logprobs = fields.logprobs.value_or(0);
  request.output.num_prompt_logprobs = fields.prompt_logprobs.value_or(-1);
  request.priority = admitted.priority;
  request.prompt = fields.token_ids;
  return grpc::Status::OK;
}

std::vector<Request> split_samples(const Request& request, const std::vector<ResumeFields>& states,
                                   const std::vector<bool>& finished) {
  std::vector<Request> samples;
  for (size_t i = 0; i < finished.size(); ++i) {
    if (finished[i]) continue;
    const bool first = samples.empty();
    samples.push_back(request);
    samples.back().sampling.sample_index = static_cast<uint32_t>(i);
    if (!first) samples.back().output.num_prompt_logprobs = -1;  // one tells them for all
    for (const ResumeFields& state : states) {
      if (state.index == static_cast<int32_t>(i)) samples.back().resumed_outputs = state.token_ids;
    }
  }
  return samples;
}

}  // namespace trireme::worker
