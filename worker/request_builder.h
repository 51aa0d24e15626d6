#pragma once
// From a client's message to a request of the engine, in two parts: what an RPC thread may do, and what takes
// time.

#include <cstdint>
#include <optional>
#include <vector>

#include <grpcpp/support/status.h>

#include "engine/base/request_limits.h"
#include "engine/request.h"
#include "trireme/v1/inference.pb.h"
#include "worker/served_model.h"

namespace trireme::worker {

/// A request that passed every check that needs no tokens. Owns what it needs of the message.
struct AdmittedRequest {
  RequestFields fields;
  std::optional<uint64_t> seed;
  bool ignore_eos = false;
  bool include_special_tokens = false;
  int32_t priority = 0;
};

/// NOT_FOUND for a model that is not the served one, empty standing for it.
grpc::Status check_model(const std::string& asked, const ServedModel& model);

/// Quick: copies the prompt and checks what can be checked without tokens. INVALID_ARGUMENT names the field;
/// FAILED_PRECONDITION when text comes without a tokenizer; NOT_FOUND for another model.
grpc::Status admit(const v1::GenerateRequest& message, const ServedModel& model, AdmittedRequest& admitted);

/// Slow: tokenizes, checks lengths exactly and resolves defaults. The handle is left to the leader.
grpc::Status build_request(AdmittedRequest& admitted, const ServedModel& model, Request& request);

/// One request per sample that is still to produce something, all of them like `request`; `finished` [n] says
/// which do not. Samples go on after the tokens of their ResumeState.
std::vector<Request> split_samples(const Request& request, const std::vector<ResumeFields>& states,
                                   const std::vector<bool>& finished);

/// What unset sampling fields mean for this model: GetModel's default_sampling.
SamplingParams default_sampling(const GenerationDefaults& defaults);

}  // namespace trireme::worker
