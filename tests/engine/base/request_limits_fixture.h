#pragma once
// What the tests of the request validator share: a good request, the limits of a small model.

#include <cstdint>
#include <string>

#include "engine/base/request_limits.h"

namespace trireme {

inline constexpr int32_t kVocab = 1000;
inline constexpr int32_t kContext = 64;

inline RequestFields good() {
  RequestFields request;
  request.token_ids = {1, 2, 3, 4};
  return request;
}

inline RequestLimits limits() {
  RequestLimits result;
  result.vocab_size = kVocab;
  result.max_context_len = kContext;
  return result;
}

/// The field of the violation; empty when there is none.
inline std::string violated(const RequestFields& request, const RequestLimits& with = limits()) {
  const auto bad = validate(request, with);
  return bad ? bad->field : "";
}

}  // namespace trireme
