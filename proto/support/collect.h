#pragma once

#include "trireme/v1/inference.pb.h"

namespace trireme::rpc {

/// Adds a message of Generate's stream to GenerateOnce's result: prompt and usage are taken over, the deltas
/// of a sample are appended to its completion. Completions are kept in the order of their index, 0 first; a
/// delta whose index is not in [0, max_samples) is ignored and false returned. One thread.
bool collect(const v1::GenerateResponse& message, int max_samples, v1::GenerateOnceResponse& result);

}  // namespace trireme::rpc
