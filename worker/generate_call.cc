#include "worker/generate_call.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
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
  options.min_tokens = admitted.fields.min_tokens.value_or(0);
  options.stop = admitted.fields.stop;
  return options;
}

}  // namespace

void GenerateCall::begin(const v1::GenerateRequest& message) {
  std::lock_guard lock(mutex_);
  if (environment_.leader.draining()) {
    return fail(refusal(absl::UnavailableError("the replica is draining and takes no new requests")));
  }
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
  std::lock_guard lock(mutex_);
  if (released_) return;
  if (!status.ok()) return fail(status);
  builder_ = std::move(builder);
  receipt_.submitted(static_cast<int32_t>(request.prompt.size()), !admitted_.fields.resume.empty());
  admitted_ = {};
  submit(std::move(request));
}

grpc::Status GenerateCall::make_builder(const Request& request, std::optional<ResponseBuilder>& builder) {
  v1::PromptInfo prompt;
  prompt.set_request_id(request_id_);
  prompt.set_model(environment_.model.name);
  prompt.mutable_token_ids()->Assign(request.prompt.begin(), request.prompt.end());
  prompt.set_seed(request.sampling.seed);
  builder.emplace(environment_.model.tokenizer, response_options(admitted_), std::move(prompt));
  const auto violation = builder->resume(admitted_.fields.resume, request.stopping);
  return violation ? rpc::invalid_field(violation->field, violation->description) : grpc::Status::OK;
}

void GenerateCall::submit(Request request) {
  if (builder_->finished()) return flush();  // another replica has produced everything
  if (cancelled_) {
    TokenOutput end;
    end.finish = FinishReason::cancelled;
    end.has_token = false;
    builder_->append(end);
    return flush();
  }
  const auto handle = environment_.leader.submit(std::move(request), shared_from_this());
  if (!handle.ok()) return fail(refusal(handle.status()));
  handle_ = *handle;
  running_ = true;
}

void GenerateCall::deliver() {
  std::lock_guard lock(mutex_);
  outputs_.clear();
  const absl::Status error = outbox.drain(outputs_);
  if (released_ || !builder_) return;
  for (const TokenOutput& output : outputs_) builder_->append(output);
  if (!error.ok() || (!outputs_.empty() && outputs_.back().finish != FinishReason::none)) running_ = false;
  if (!builder_->error().ok()) return fail(rpc::to_grpc(builder_->error()));
  if (builder_->finished()) {
    end_engine_side();  // after a stop string it would go on
  } else if (!error.ok()) {
    if (absl::IsCancelled(error)) reset_stream();
    return fail(absl::IsUnavailable(error) ? refusal(error) : rpc::to_grpc(error));
  }
  flush();
}

void GenerateCall::cancel() {
  std::lock_guard lock(mutex_);
  cancelled_ = true;
  if (running_) environment_.leader.cancel(*handle_);
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
  if (std::exchange(running_, false)) environment_.leader.cancel(*handle_);
}

void GenerateCall::fail(grpc::Status error) {
  error_ = std::move(error);
  release();
  flush();
}

}  // namespace trireme::worker
