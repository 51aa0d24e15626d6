#pragma once

#include "engine/base/request_limits.h"
#include "trireme/v1/inference.pb.h"

namespace trireme::rpc {

/// The message as the validator wants it. Copies the prompt: call it once per request.
RequestFields request_fields(const v1::GenerateRequest& request);

}  // namespace trireme::rpc
