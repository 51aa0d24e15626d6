#include "worker/generate_call.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/support/caller.h"
#include "proto/support/errors.h"

namespace trireme::worker {

namespace {

// By then some of the queue has usually moved on, or a drained replica's successor is there.
constexpr std::chrono::milliseconds kRetryDelay{1000};

grpc::Status refusal(const absl::Status& status) {
  return rpc::retry_after(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                          kRetryDelay);
}

ResponseOptions response_options(const AdmittedRequest& admitted) {
  ResponseOptions options;
  options.include_special_tokens = admitted.include_special_tokens;
  options.logprobs = admitted.fields.logprobs.has_value();
  options.prompt_logprobs = admitted.fields.prompt_logprobs.has_value();
  options.min_tokens = admitted.fields.min_tokens.value_or(0);
  options.stop = admitted.fields.stop;
  return options;
}

TokenOutput cancelled_output(uint32_t sample_index) {
  TokenOutput end;
  end.sample_index = sample_index;
  end.finish = FinishReason::cancelled;
  end.has_token = false;
  return end;
}

std::vector<Request> unfinished_samples(const Request& request, const ResponseBuilder& builder,
                                        const std::vector<ResumeFields>& states) {
  std::vector<bool> finished;
  for (size_t i = 0; i < builder.num_samples(); ++i) finished.push_back(builder.finished(i));
  return split_samples(request, states, finished);
}

}  // namespace

void GenerateCall::begin(const v1::GenerateRequest& message, const grpc::CallbackServerContext& context) {
  std::lock_guard lock(mutex_);
  if (environment_.leader.draining()) {
    return fail(refusal(absl::UnavailableError("the replica is draining and takes no new requests")));
  }
  if (auto status = identify(context); !status.ok()) return fail(status);
  if (auto status = admit(message, environment_.model, admitted_); !status.ok()) return fail(status);
  request_id_ = admitted_.fields.request_id.empty() ? ActiveRequests::draw_id() : admitted_.fields.request_id;
  if (!environment_.active.insert(request_id_, weak_from_this())) {
    return fail(rpc::with_info(grpc::StatusCode::ALREADY_EXISTS,
                               absl::StrCat("request_id: a request with id ", request_id_, " is active"),
                               "DUPLICATE_REQUEST_ID", {{"request_id", request_id_}}));
  }
  id_taken_ = true;
  if (!environment_.pool.try_post([self = shared_from_this()] { self->prepare(); })) {
    fail(refusal(absl::ResourceExhaustedError("queue is full: too many prompts wait to be tokenized")));
  }
}

// What was let in on a replica that died is nobody's new request: after a death it finds the queue that the
// dead one's share of its client's requests has filled.
grpc::Status GenerateCall::identify(const grpc::CallbackServerContext& context) {
  const grpc::Status status = rpc::identify_client(context.client_metadata(), context.peer(), client);
  if (rpc::is_resumed(context.client_metadata())) client.clear();
  return status;
}

void GenerateCall::prepare() {
  {
    std::lock_guard lock(mutex_);
    if (released_) return;
  }
  // Without the lock: it may take long, and nothing else touches `admitted_` before the end of begin() or
  // after it.
  Request request;
  grpc::Status status = build_request(admitted_, environment_.model, request);
  std::optional<ResponseBuilder> builder;
  if (status.ok()) status = make_builder(request, builder);
  std::vector<Request> samples;
  if (status.ok()) samples = unfinished_samples(request, *builder, admitted_.fields.resume);
  std::lock_guard lock(mutex_);
  if (released_) return;
  if (!status.ok()) return fail(status);
  builder_ = std::move(builder);
  receipt_.submitted(static_cast<int32_t>(request.prompt.size()), !admitted_.fields.resume.empty());
  admitted_ = {};
  submit(std::move(samples));
}

grpc::Status GenerateCall::make_builder(const Request& request, std::optional<ResponseBuilder>& builder) {
  v1::PromptInfo prompt;
  prompt.set_request_id(request_id_);
  prompt.set_model(environment_.model.name);
  prompt.mutable_token_ids()->Assign(request.prompt.begin(), request.prompt.end());
  prompt.set_seed(request.sampling.seed);
  builder.emplace(environment_.model.tokenizer, response_options(admitted_), std::move(prompt),
                  admitted_.fields.n.value_or(1));
  const auto violation = builder->resume(admitted_.fields.resume, request.stopping);
  return violation ? rpc::invalid_field(violation->field, violation->description) : grpc::Status::OK;
}

void GenerateCall::submit(std::vector<Request> samples) {
  if (samples.empty()) return flush();  // other replicas have produced everything
  std::vector<uint32_t> indices;
  for (const Request& sample : samples) indices.push_back(sample.sampling.sample_index);
  if (cancelled_) {
    for (const uint32_t index : indices) builder_->append(cancelled_output(index));
    return flush();
  }
  const auto first = environment_.leader.submit(std::move(samples), shared_from_this());
  if (!first.ok()) return fail(refusal(first.status()));
  for (size_t i = 0; i < indices.size(); ++i) running_[indices[i]] = *first + i;
}

void GenerateCall::deliver() {
  std::lock_guard lock(mutex_);
  outputs_.clear();
  const absl::Status error = outbox.drain(outputs_);
  if (released_ || !builder_) return;
  for (const TokenOutput& output : outputs_) {
    builder_->append(output);
    if (output.finish != FinishReason::none) running_.erase(output.sample_index);
  }
  if (!builder_->error().ok()) return fail(rpc::to_grpc(builder_->error()));
  end_finished_samples();
  if (builder_->finished()) {
    end_engine_side();
  } else if (!error.ok()) {
    if (absl::IsCancelled(error)) reset_stream();
    return fail(absl::IsUnavailable(error) ? refusal(error) : rpc::to_grpc(error));
  }
  flush();
}

void GenerateCall::cancel() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  for (const auto& [index, handle] : running_) environment_.leader.cancel(handle);
}

void GenerateCall::abandon() {
  if (abandoned_) return;
  abandoned_ = true;
  release();
  flush();
}

void GenerateCall::release() {
  if (std::exchange(released_, true)) return;
  account_end();
  if (id_taken_) environment_.active.erase(request_id_);
  end_engine_side();
}

void GenerateCall::account_end() {
  if (!error_.ok()) return receipt_.failed(error_.error_code());
  if (builder_ && builder_->complete()) return receipt_.succeeded();
  receipt_.cancelled();
}

void GenerateCall::end_engine_side() {
  outbox.close();
  for (const auto& [index, handle] : std::exchange(running_, {})) environment_.leader.cancel(handle);
}

// After a stop string the engine would go on.
void GenerateCall::end_finished_samples() {
  std::erase_if(running_, [this](const auto& running) {
    const bool finished = builder_->finished(running.first);
    if (finished) environment_.leader.cancel(running.second);
    return finished;
  });
}

void GenerateCall::fail(grpc::Status error) {
  error_ = std::move(error);
  release();
  flush();
}

}  // namespace trireme::worker
