#include "worker/generate_service.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/support/errors.h"
#include "worker/generate_reactors.h"
#include "worker/request_builder.h"

namespace trireme::worker {

namespace {

grpc::ServerUnaryReactor* finish(grpc::CallbackServerContext* context, const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

grpc::Status tokenize(const v1::TokenizeRequest& request, const ServedModel& model,
                      v1::TokenizeResponse& response) {
  const bool add_special_tokens = !request.has_add_special_tokens() || request.add_special_tokens();
  const auto ids = model.tokenizer->encode(request.text(), add_special_tokens);
  if (!ids.ok())
    return rpc::invalid_field("text", absl::StrCat("cannot be tokenized: ", ids.status().message()));
  response.mutable_token_ids()->Assign(ids->begin(), ids->end());
  return grpc::Status::OK;
}

grpc::Status detokenize(const v1::DetokenizeRequest& request, const ServedModel& model,
                        v1::DetokenizeResponse& response) {
  for (int i = 0; i < request.token_ids_size(); ++i) {
    const int32_t id = request.token_ids(i);
    if (id < 0 || id >= model.vocab_size) {
      return rpc::invalid_field(absl::StrCat("token_ids[", i, "]"),
                                absl::StrCat("is ", id, "; wanted 0 to ", model.vocab_size - 1));
    }
  }
  const std::vector<int32_t> ids(request.token_ids().begin(), request.token_ids().end());
  response.set_text(model.tokenizer->decode(ids, !request.include_special_tokens()));
  return grpc::Status::OK;
}

/// The time limit is kept to within a quarter of it, and to a quarter of a second where it is long.
std::chrono::milliseconds tick_period(const GenerateServiceOptions& options) {
  using std::chrono::milliseconds;
  return std::clamp(options.write_timeout / 4, milliseconds(10), milliseconds(250));
}

void fill_sampling(const SamplingParams& sampling, v1::SamplingParams& message) {
  message.set_temperature(sampling.temperature);
  message.set_top_k(sampling.top_k);
  message.set_top_p(sampling.top_p);
  message.set_min_p(sampling.min_p);
  message.set_repetition_penalty(sampling.repetition_penalty);
  message.set_presence_penalty(sampling.presence_penalty);
  message.set_frequency_penalty(sampling.frequency_penalty);
}

}  // namespace

GenerateService::GenerateService(const ServedModel& model, Leader& leader, GenerateServiceOptions options)
    : model_(model),
      leader_(leader),
      options_(options),
      pool_(options.num_tokenizer_threads, options.max_queued_prompts),
      ticker_(tick_period(options), [this](auto now) { streams_.tick(now); }) {}

grpc::ServerWriteReactor<v1::GenerateResponse>* GenerateService::Generate(
    grpc::CallbackServerContext* context, const v1::GenerateRequest* request) {
  return StreamCall::start(environment(), context, *request);
}

grpc::ServerUnaryReactor* GenerateService::GenerateOnce(grpc::CallbackServerContext* context,
                                                        const v1::GenerateRequest* request,
                                                        v1::GenerateOnceResponse* response) {
  return OnceCall::start(environment(), context, *request, response);
}

grpc::ServerUnaryReactor* GenerateService::Cancel(grpc::CallbackServerContext* context,
                                                  const v1::CancelRequest* request, v1::CancelResponse*) {
  if (request->request_id().empty()) {
    return finish(context, rpc::invalid_field("request_id", "is empty"));
  }
  if (const auto call = active_.find(request->request_id())) call->cancel();
  return finish(context, grpc::Status::OK);
}

grpc::ServerUnaryReactor* GenerateService::Tokenize(grpc::CallbackServerContext* context,
                                                    const v1::TokenizeRequest* request,
                                                    v1::TokenizeResponse* response) {
  if (auto status = check_text_request(request->model()); !status.ok()) return finish(context, status);
  const auto max_bytes = static_cast<size_t>(model_.limits().max_prompt_bytes);
  if (request->text().size() > max_bytes) {
    return finish(context, rpc::invalid_field("text", absl::StrCat("has ", request->text().size(),
                                                                   " bytes; at most ", max_bytes)));
  }
  return run_on_pool(context, [=, this] { return tokenize(*request, model_, *response); });
}

grpc::ServerUnaryReactor* GenerateService::Detokenize(grpc::CallbackServerContext* context,
                                                      const v1::DetokenizeRequest* request,
                                                      v1::DetokenizeResponse* response) {
  if (auto status = check_text_request(request->model()); !status.ok()) return finish(context, status);
  return run_on_pool(context, [=, this] { return detokenize(*request, model_, *response); });
}

grpc::ServerUnaryReactor* GenerateService::GetModel(grpc::CallbackServerContext* context,
                                                    const v1::GetModelRequest* request,
                                                    v1::GetModelResponse* response) {
  if (auto status = check_model(request->model(), model_); !status.ok()) return finish(context, status);
  response->set_name(model_.name);
  response->set_architecture(model_.architecture);
  response->set_vocab_size(model_.vocab_size);
  response->set_max_context_len(model_.max_context_len);
  fill_sampling(default_sampling(model_.defaults), *response->mutable_default_sampling());
  response->mutable_eos_token_ids()->Assign(model_.eos_token_ids.begin(), model_.eos_token_ids.end());
  response->set_tensor_parallel_size(model_.tensor_parallel_size);
  response->set_compute_dtype(model_.compute_dtype);
  response->set_backend(model_.backend);
  response->set_num_replicas(1);
  return finish(context, grpc::Status::OK);
}

grpc::Status GenerateService::check_text_request(const std::string& model) const {
  if (auto status = check_model(model, model_); !status.ok()) return status;
  if (model_.tokenizer != nullptr) return grpc::Status::OK;
  return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "this server has no tokenizer (dummy weights)");
}

grpc::ServerUnaryReactor* GenerateService::run_on_pool(grpc::CallbackServerContext* context,
                                                       std::function<grpc::Status()> work) {
  // Request and response live until the reactor is done, so until Finish.
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  if (!pool_.try_post([reactor, work = std::move(work)] { reactor->Finish(work()); })) {
    reactor->Finish(rpc::retry_after(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                     "queue is full: too many texts wait to be tokenized",
                                     std::chrono::seconds(1)));
  }
  return reactor;
}

}  // namespace trireme::worker
