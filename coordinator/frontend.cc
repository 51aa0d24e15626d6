#include "coordinator/frontend.h"

#include <algorithm>

#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/forwarded_call.h"
#include "coordinator/generate_reactors.h"
#include "proto/support/caller.h"
#include "proto/support/errors.h"
#include "proto/support/request_fields.h"

namespace trireme {
namespace {

/// The client's deadline, at most `cap` from now. On the monotonic clock: a clock that jumps ends nothing.
gpr_timespec capped_deadline(const grpc::CallbackServerContext& context, std::chrono::milliseconds cap) {
  const gpr_timespec latest =
      gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(cap.count(), GPR_TIMESPAN));
  const gpr_timespec wanted = gpr_convert_clock_type(context.raw_deadline(), GPR_CLOCK_MONOTONIC);
  return gpr_time_cmp(wanted, latest) < 0 ? wanted : latest;
}

/// Time limits are kept to within a quarter of them, and to a quarter of a second where they are long.
std::chrono::milliseconds tick_period(const RequestOptions& options) {
  using std::chrono::milliseconds;
  milliseconds shortest = options.write_timeout;
  if (options.resume_timeout.count() > 0) shortest = std::min(shortest, options.resume_timeout);
  return std::clamp(shortest / 4, milliseconds(10), milliseconds(250));
}

grpc::ServerUnaryReactor* answer(grpc::CallbackServerContext* context, const grpc::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

PromptChunks prompt_chunks(const v1::GenerateRequest& request) {
  if (request.prompt_case() == v1::GenerateRequest::kText) return text_chunks(request.text());
  const auto& ids = request.token_ids().ids();
  return token_chunks(ids.data(), static_cast<size_t>(ids.size()));
}

grpc::Status check_bytes(const char* field, size_t got, size_t wanted) {
  if (got <= wanted) return grpc::Status::OK;
  return rpc::invalid_field(field, absl::StrCat("has ", got, "; at most ", wanted, " are allowed"));
}

}  // namespace

Frontend::Frontend(Membership& membership, const FrontendOptions& options)
    : membership_(membership), options_(options), ticker_(tick_period(options.request), [this](auto now) {
        for (const auto& call : active_.all()) call->tick(now);
      }) {
  std::random_device device;
  std::seed_seq seed{device(), device(), device(), device(), device(), device(), device(), device()};
  random_.seed(seed);
}

uint64_t Frontend::random_number() {
  std::lock_guard lock(random_mutex_);
  return random_();
}

grpc::Status Frontend::nobody_serves() const {
  return rpc::retry_after(grpc::StatusCode::UNAVAILABLE,
                          active_.closed() ? "the coordinator is shutting down" : "no replica is serving",
                          options_.retry_delay);
}

grpc::Status Frontend::check_model(const std::string& model) const {
  const std::string served = membership_.registry().model_name();
  if (model.empty() || served.empty() || model == served) return grpc::Status::OK;
  return rpc::unknown_resource("model", model,
                               absl::StrCat("no model '", model, "'; served is '", served, "'"));
}

grpc::Status Frontend::assign(const std::string& model, const RouteWish& wish,
                              std::unique_ptr<Assignment>* assignment) {
  if (grpc::Status status = check_model(model); !status.ok()) return status;
  if (active_.closed()) return nobody_serves();
  *assignment = membership_.assign(wish);
  return *assignment ? grpc::Status::OK : nobody_serves();
}

void Frontend::fix(v1::GenerateRequest& request) {
  if (request.request_id().empty())
    request.set_request_id(absl::StrFormat("%016x%016x", random_number(), random_number()));
  if (!request.sampling().has_seed()) request.mutable_sampling()->set_seed(random_number());
}

grpc::Status Frontend::admit(grpc::CallbackServerContext* context, const v1::GenerateRequest& request,
                             GenerateSink& sink, std::shared_ptr<GenerateCall>* call) {
  const auto arrival = RequestRecord::Clock::now();
  if (grpc::Status status = check_model(request.model()); !status.ok()) return status;
  AdmittedRequest admitted;
  const grpc::Status identified =
      rpc::identify_client(context->client_metadata(), context->peer(), admitted.client);
  if (!identified.ok()) return identified;
  const auto violation =
      validate(rpc::request_fields(request), membership_.registry().limits(options_.limits));
  if (violation) return rpc::invalid_field(violation->field, violation->description);
  std::unique_ptr<Assignment> assignment;
  RouteWish wish{prompt_chunks(request), {}};
  if (grpc::Status status = assign(request.model(), wish, &assignment); !status.ok()) return status;
  admitted.request = request;
  fix(admitted.request);
  admitted.prompt = std::move(wish.prompt);
  admitted.deadline = capped_deadline(*context, options_.max_request_time);
  auto made = std::make_shared<GenerateCall>(
      std::move(admitted), membership_, std::move(assignment), options_.request,
      RequestRecord(metrics_, arrival), sink,
      [this](const GenerateCall& ending, const grpc::Status& status) { ended(ending, status); });
  switch (active_.add(made)) {
    case ActiveRequests::Added::closed:
      return nobody_serves();
    case ActiveRequests::Added::duplicate:
      return rpc::with_info(grpc::StatusCode::ALREADY_EXISTS,
                            absl::StrCat("a request with id ", made->request_id(), " is running"),
                            "DUPLICATE_REQUEST", {{"request_id", made->request_id()}});
    case ActiveRequests::Added::yes:
      break;
  }
  std::lock_guard lock(counts_mutex_);
  ++counts_.accepted;
  ++counts_.running;
  *call = std::move(made);
  return grpc::Status::OK;
}

grpc::Status Frontend::refuse(const grpc::Status& status) {
  std::lock_guard lock(counts_mutex_);
  ++counts_.rejected;
  metrics_.count_end(status.error_code());
  return status;
}

RequestCounts Frontend::counts() const {
  std::lock_guard lock(counts_mutex_);
  return counts_;
}

void Frontend::ended(const GenerateCall& call, const grpc::Status& status) {
  active_.remove(call.request_id());
  const bool cancelled = call.was_cancelled() || status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
  const bool failed = !status.ok() && !cancelled && status.error_code() != grpc::StatusCode::INVALID_ARGUMENT;
  {
    std::lock_guard lock(counts_mutex_);
    --counts_.running;
    counts_.cancelled += cancelled ? 1 : 0;
    counts_.failed += failed ? 1 : 0;
    counts_.resumed += call.num_resumes() > 0 ? 1 : 0;
    counts_.output_tokens += call.num_tokens();
  }
  spdlog::debug("request {} on replica {}: code {}, {} tokens", call.request_id(), call.replica_id(),
                static_cast<int>(status.error_code()), call.num_tokens());
}

grpc::ServerWriteReactor<v1::GenerateResponse>* Frontend::Generate(grpc::CallbackServerContext* context,
                                                                   const v1::GenerateRequest* request) {
  auto* reactor = new StreamReactor(context);
  std::shared_ptr<GenerateCall> call;
  const grpc::Status status = admit(context, *request, *reactor, &call);
  if (!status.ok()) {
    reactor->Finish(refuse(status));
    return reactor;
  }
  reactor->attach(call);
  call->start();
  return reactor;
}

grpc::ServerUnaryReactor* Frontend::GenerateOnce(grpc::CallbackServerContext* context,
                                                 const v1::GenerateRequest* request,
                                                 v1::GenerateOnceResponse* response) {
  const int num_samples = request->output().has_n() ? request->output().n() : 1;
  auto* reactor = new OnceReactor(context, num_samples, response);
  std::shared_ptr<GenerateCall> call;
  const grpc::Status status = admit(context, *request, *reactor, &call);
  if (!status.ok()) {
    reactor->Finish(refuse(status));
    return reactor;
  }
  reactor->attach(call);
  call->start();
  return reactor;
}

grpc::ServerUnaryReactor* Frontend::Cancel(grpc::CallbackServerContext* context,
                                           const v1::CancelRequest* request, v1::CancelResponse*) {
  const std::shared_ptr<GenerateCall> call = active_.find(request->request_id());
  if (!call) return answer(context, grpc::Status::OK);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  call->cancel_request(capped_deadline(*context, options_.max_unary_time),
                       [reactor] { reactor->Finish(grpc::Status::OK); });
  return reactor;
}

grpc::ServerUnaryReactor* Frontend::Tokenize(grpc::CallbackServerContext* context,
                                             const v1::TokenizeRequest* request,
                                             v1::TokenizeResponse* response) {
  const auto most = static_cast<size_t>(options_.limits.max_prompt_bytes);
  std::unique_ptr<Assignment> assignment;
  grpc::Status status = check_bytes("text", request->text().size(), most);
  if (status.ok()) status = assign(request->model(), {}, &assignment);
  if (!status.ok()) return answer(context, status);
  return new ForwardedCall<v1::TokenizeRequest, v1::TokenizeResponse>(
      std::move(assignment), capped_deadline(*context, options_.max_unary_time),
      &v1::Inference::StubInterface::async_interface::Tokenize, request, response);
}

grpc::ServerUnaryReactor* Frontend::Detokenize(grpc::CallbackServerContext* context,
                                               const v1::DetokenizeRequest* request,
                                               v1::DetokenizeResponse* response) {
  const auto most = static_cast<size_t>(options_.limits.max_prompt_bytes);
  std::unique_ptr<Assignment> assignment;
  grpc::Status status = check_bytes("token_ids", static_cast<size_t>(request->token_ids_size()), most);
  if (status.ok()) status = assign(request->model(), {}, &assignment);
  if (!status.ok()) return answer(context, status);
  return new ForwardedCall<v1::DetokenizeRequest, v1::DetokenizeResponse>(
      std::move(assignment), capped_deadline(*context, options_.max_unary_time),
      &v1::Inference::StubInterface::async_interface::Detokenize, request, response);
}

grpc::ServerUnaryReactor* Frontend::GetModel(grpc::CallbackServerContext* context,
                                             const v1::GetModelRequest* request,
                                             v1::GetModelResponse* response) {
  std::unique_ptr<Assignment> assignment;
  const grpc::Status status = assign(request->model(), {}, &assignment);
  if (!status.ok()) return answer(context, status);
  return new ForwardedCall<v1::GetModelRequest, v1::GetModelResponse>(
      std::move(assignment), capped_deadline(*context, options_.max_unary_time),
      &v1::Inference::StubInterface::async_interface::GetModel, request, response,
      [this](v1::GetModelResponse& model) { model.set_num_replicas(membership_.registry().num_serving()); });
}

void Frontend::lose_replica(LeaseId lease) {
  for (const auto& call : active_.all()) call->replica_lost(lease);
}

void Frontend::replica_available() {
  for (const auto& call : active_.all()) call->replica_available();
}

void Frontend::close() {
  active_.close();
  for (const auto& call : active_.all()) call->stop_waiting();
}

int Frontend::abort_all() {
  const auto calls = active_.all();
  for (const auto& call : calls) call->abort();
  return static_cast<int>(calls.size());
}

}  // namespace trireme
