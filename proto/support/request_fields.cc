#include "proto/support/request_fields.h"

namespace trireme::rpc {
namespace {

void take_sampling(const v1::SamplingParams& sampling, RequestFields& fields) {
  if (sampling.has_temperature()) fields.temperature = sampling.temperature();
  if (sampling.has_top_k()) fields.top_k = sampling.top_k();
  if (sampling.has_top_p()) fields.top_p = sampling.top_p();
  if (sampling.has_min_p()) fields.min_p = sampling.min_p();
  if (sampling.has_repetition_penalty()) fields.repetition_penalty = sampling.repetition_penalty();
  if (sampling.has_presence_penalty()) fields.presence_penalty = sampling.presence_penalty();
  if (sampling.has_frequency_penalty()) fields.frequency_penalty = sampling.frequency_penalty();
  fields.logit_bias.assign(sampling.logit_bias().begin(), sampling.logit_bias().end());
}

void take_stopping(const v1::StoppingParams& stopping, RequestFields& fields) {
  if (stopping.has_max_tokens()) fields.max_tokens = stopping.max_tokens();
  if (stopping.has_min_tokens()) fields.min_tokens = stopping.min_tokens();
  fields.stop.assign(stopping.stop().begin(), stopping.stop().end());
  fields.stop_token_ids.assign(stopping.stop_token_ids().begin(), stopping.stop_token_ids().end());
}

void take_output(const v1::OutputParams& output, RequestFields& fields) {
  if (output.has_n()) fields.n = output.n();
  if (output.has_logprobs()) fields.logprobs = output.logprobs();
  if (output.has_prompt_logprobs()) fields.prompt_logprobs = output.prompt_logprobs();
}

void take_resume(const v1::GenerateRequest& request, RequestFields& fields) {
  fields.resume.reserve(static_cast<size_t>(request.resume_size()));
  for (const v1::ResumeState& state : request.resume()) {
    fields.resume.push_back(
        {state.index(), {state.token_ids().begin(), state.token_ids().end()}, state.finished()});
  }
}

}  // namespace

RequestFields request_fields(const v1::GenerateRequest& request) {
  RequestFields fields;
  fields.request_id = request.request_id();
  fields.has_text = request.prompt_case() == v1::GenerateRequest::kText;
  fields.text = request.text();
  fields.token_ids.assign(request.token_ids().ids().begin(), request.token_ids().ids().end());
  take_sampling(request.sampling(), fields);
  take_stopping(request.stopping(), fields);
  take_output(request.output(), fields);
  take_resume(request, fields);
  return fields;
}

}  // namespace trireme::rpc
