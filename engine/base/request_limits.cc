#include "engine/base/request_limits.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_cat.h"

namespace trireme {
namespace {

using Violation = std::optional<FieldViolation>;

Violation violation(std::string field, std::string description) {
  return FieldViolation{std::move(field), std::move(description)};
}

/// NaN compares false with everything, so each check asks what must hold and negates it.
bool within(float value, float low, float high) { return value >= low && value <= high; }

Violation check_request_id(const std::string& id) {
  if (id.empty()) return std::nullopt;
  if (id.size() > 128)
    return violation("request_id", absl::StrCat("has ", id.size(), " characters; at most 128 are allowed"));
  for (size_t i = 0; i < id.size(); ++i) {
    const char c = id[i];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool other = (c >= '0' && c <= '9') || c == '.' || c == '_' || c == ':' || c == '-';
    if (!letter && !other)
      return violation("request_id",
                       absl::StrCat("byte ", i, " is 0x", absl::Hex(static_cast<uint8_t>(c), absl::kZeroPad2),
                                    "; letters, digits and . _ : - are allowed"));
  }
  return std::nullopt;
}

Violation check_token_id(const std::string& field, int32_t id, const RequestLimits& limits) {
  if (id < 0) return violation(field, absl::StrCat("is ", id, "; token ids are not negative"));
  if (limits.vocab_size > 0 && id >= limits.vocab_size)
    return violation(field, absl::StrCat("is ", id, "; the vocabulary has ", limits.vocab_size, " tokens"));
  return std::nullopt;
}

/// Tokens of the prompt as far as they are known: text that is not tokenized yet is at least one.
int64_t known_prompt_tokens(const RequestFields& request) {
  if (request.has_text && request.token_ids.empty()) return 1;
  return static_cast<int64_t>(request.token_ids.size());
}

Violation check_prompt(const RequestFields& request, const RequestLimits& limits) {
  const std::string field = request.has_text ? "text" : "token_ids";
  if (request.has_text && request.text.empty()) return violation(field, "is empty; a prompt is needed");
  if (!request.has_text && request.token_ids.empty())
    return violation("prompt", "is empty; text or at least one token id is needed");
  if (static_cast<int64_t>(request.text.size()) > limits.max_prompt_bytes)
    return violation(field, absl::StrCat("has ", request.text.size(), " bytes; at most ",
                                         limits.max_prompt_bytes, " are allowed"));
  const int64_t num_tokens = known_prompt_tokens(request);
  if (num_tokens > limits.max_prompt_bytes)
    return violation(field, absl::StrCat("has ", num_tokens, " tokens; at most ", limits.max_prompt_bytes,
                                         " are allowed"));
  if (limits.max_context_len > 0 && num_tokens >= limits.max_context_len)
    return violation(field, absl::StrCat("has ", num_tokens, " tokens; the context holds ",
                                         limits.max_context_len, ", prompt and output together"));
  for (size_t i = 0; i < request.token_ids.size(); ++i) {
    const std::string id_field = request.has_text ? field : absl::StrCat("token_ids.ids[", i, "]");
    if (auto bad = check_token_id(id_field, request.token_ids[i], limits)) return bad;
  }
  return std::nullopt;
}

Violation check_float(const char* field, const std::optional<float>& value, float low, float high) {
  if (!value || within(*value, low, high)) return std::nullopt;
  return violation(field, absl::StrCat("is ", *value, "; wanted ", low, " to ", high));
}

/// Like check_float, with the lower end excluded.
Violation check_positive(const char* field, const std::optional<float>& value, float high) {
  if (!value || (*value > 0 && *value <= high)) return std::nullopt;
  return violation(field, absl::StrCat("is ", *value, "; wanted more than 0, at most ", high));
}

Violation check_int(const char* field, const std::optional<int32_t>& value, int64_t low, int64_t high) {
  if (!value || (*value >= low && *value <= high)) return std::nullopt;
  if (*value < low) return violation(field, absl::StrCat("is ", *value, "; wanted at least ", low));
  return violation(field, absl::StrCat("is ", *value, "; wanted at most ", high));
}

Violation check_sampling(const RequestFields& request, const RequestLimits& limits) {
  if (auto bad = check_float("sampling.temperature", request.temperature, 0, 100)) return bad;
  if (auto bad = check_int("sampling.top_k", request.top_k, 0, INT32_MAX)) return bad;
  if (auto bad = check_positive("sampling.top_p", request.top_p, 1)) return bad;
  if (auto bad = check_float("sampling.min_p", request.min_p, 0, 1)) return bad;
  if (auto bad = check_positive("sampling.repetition_penalty", request.repetition_penalty, 10)) return bad;
  if (auto bad = check_float("sampling.presence_penalty", request.presence_penalty, -2, 2)) return bad;
  if (auto bad = check_float("sampling.frequency_penalty", request.frequency_penalty, -2, 2)) return bad;
  if (static_cast<int64_t>(request.logit_bias.size()) > limits.max_logit_bias)
    return violation("sampling.logit_bias", absl::StrCat("has ", request.logit_bias.size(),
                                                         " entries; at most ", limits.max_logit_bias));
  for (const auto& [id, bias] : request.logit_bias) {
    const std::string field = absl::StrCat("sampling.logit_bias[", id, "]");
    if (auto bad = check_token_id(field, id, limits)) return bad;
    if (!std::isfinite(bias)) return violation(field, absl::StrCat("is ", bias, "; wanted a finite number"));
  }
  return std::nullopt;
}

Violation check_lengths(const RequestFields& request, const RequestLimits& limits) {
  const int64_t room =
      limits.max_context_len > 0 ? limits.max_context_len - known_prompt_tokens(request) : int64_t{INT32_MAX};
  if (request.max_tokens && *request.max_tokens > room)
    return violation("stopping.max_tokens",
                     absl::StrCat("is ", *request.max_tokens, "; the context of ", limits.max_context_len,
                                  " tokens leaves at most ", room, " beside the prompt"));
  if (auto bad = check_int("stopping.max_tokens", request.max_tokens, 1, room)) return bad;
  const int64_t most = request.max_tokens ? int64_t{*request.max_tokens} : room;
  if (auto bad = check_int("stopping.min_tokens", request.min_tokens, 0, most)) return bad;
  const std::set<int32_t> stops(request.stop_token_ids.begin(), request.stop_token_ids.end());
  if (request.min_tokens.value_or(0) > 0 && limits.vocab_size > 0 &&
      stops.size() >= static_cast<size_t>(limits.vocab_size))
    return violation("stopping.min_tokens",
                     absl::StrCat("is ", *request.min_tokens, ", but stop_token_ids has all ",
                                  limits.vocab_size, " tokens of the vocabulary"));
  return std::nullopt;
}

Violation check_stops(const RequestFields& request, const RequestLimits& limits) {
  if (static_cast<int64_t>(request.stop.size()) > limits.max_stop_strings)
    return violation("stopping.stop", absl::StrCat("has ", request.stop.size(), " strings; at most ",
                                                   limits.max_stop_strings));
  for (size_t i = 0; i < request.stop.size(); ++i) {
    const size_t size = request.stop[i].size();
    if (size == 0 || static_cast<int64_t>(size) > limits.max_stop_bytes)
      return violation(absl::StrCat("stopping.stop[", i, "]"),
                       absl::StrCat("has ", size, " bytes; wanted 1 to ", limits.max_stop_bytes));
  }
  if (static_cast<int64_t>(request.stop_token_ids.size()) > limits.max_stop_token_ids)
    return violation("stopping.stop_token_ids", absl::StrCat("has ", request.stop_token_ids.size(),
                                                             " ids; at most ", limits.max_stop_token_ids));
  for (size_t i = 0; i < request.stop_token_ids.size(); ++i) {
    const std::string field = absl::StrCat("stopping.stop_token_ids[", i, "]");
    if (auto bad = check_token_id(field, request.stop_token_ids[i], limits)) return bad;
  }
  return std::nullopt;
}

/// All of a prompt's come in one message. Each number is in its range by now, so no product overflows.
Violation check_prompt_entries(const RequestFields& request, const RequestLimits& limits) {
  if (!request.prompt_logprobs) return std::nullopt;
  const int64_t tokens = known_prompt_tokens(request);
  const int64_t entries = tokens * (int64_t{*request.prompt_logprobs} + 1);
  if (entries <= limits.max_prompt_logprob_entries) return std::nullopt;
  return violation("output.prompt_logprobs",
                   absl::StrCat("is ", *request.prompt_logprobs, " for ", tokens, " tokens, which gives ",
                                entries, " entries; at most ", limits.max_prompt_logprob_entries));
}

Violation check_output(const RequestFields& request, const RequestLimits& limits) {
  if (auto bad = check_int("output.n", request.n, 1, limits.max_n)) return bad;
  if (auto bad = check_int("output.logprobs", request.logprobs, 0, limits.max_logprobs)) return bad;
  if (auto bad = check_int("output.prompt_logprobs", request.prompt_logprobs, 0, limits.max_logprobs))
    return bad;
  return check_prompt_entries(request, limits);
}

Violation check_resumed_tokens(const RequestFields& request, const RequestLimits& limits, size_t i) {
  const std::string field = absl::StrCat("resume[", i, "].token_ids");
  const std::vector<int32_t>& ids = request.resume[i].token_ids;
  int64_t most = limits.max_prompt_bytes;
  if (limits.max_context_len > 0)
    most = std::min<int64_t>(most, limits.max_context_len - known_prompt_tokens(request));
  if (request.max_tokens) most = std::min<int64_t>(most, *request.max_tokens);
  if (static_cast<int64_t>(ids.size()) > most)
    return violation(field, absl::StrCat("has ", ids.size(), " tokens; a sample has at most ", most));
  for (size_t j = 0; j < ids.size(); ++j) {
    if (auto bad = check_token_id(absl::StrCat(field, "[", j, "]"), ids[j], limits)) return bad;
  }
  return std::nullopt;
}

Violation check_resume(const RequestFields& request, const RequestLimits& limits) {
  const int32_t samples = request.n.value_or(1);
  if (request.resume.size() > static_cast<size_t>(samples))
    return violation("resume", absl::StrCat("has ", request.resume.size(), " states for ", samples,
                                            " samples; wanted at most one each"));
  for (size_t i = 0; i < request.resume.size(); ++i) {
    const std::string field = absl::StrCat("resume[", i, "].index");
    const int32_t index = request.resume[i].index;
    if (index < 0 || index >= samples)
      return violation(field, absl::StrCat("is ", index, "; wanted 0 to ", samples - 1));
    for (size_t j = 0; j < i; ++j) {
      if (request.resume[j].index == index)
        return violation(field,
                         absl::StrCat("is ", index, ", as in resume[", j, "]; wanted one state a sample"));
    }
    if (auto bad = check_resumed_tokens(request, limits, i)) return bad;
  }
  return std::nullopt;
}

constexpr RequestLimitOption kLimitOptions[] = {
    {"--max-prompt-bytes", &RequestLimits::max_prompt_bytes, 1, 3 << 20,
     "of a request's text; also the most token ids of its prompt"},
    {"--max-n", &RequestLimits::max_n, 1, 128, "samples of a request"},
    {"--max-logprobs", &RequestLimits::max_logprobs, 0, 20, "most likely ids a request may ask for"},
    {"--max-prompt-logprob-entries", &RequestLimits::max_prompt_logprob_entries, 0, 200'000,
     "of a request: prompt_logprobs + 1 for each token of its prompt"},
    {"--max-stop-strings", &RequestLimits::max_stop_strings, 0, 1024, "of a request"},
    {"--max-stop-bytes", &RequestLimits::max_stop_bytes, 1, 4096, "of a stop string"},
    {"--max-stop-token-ids", &RequestLimits::max_stop_token_ids, 0, 65536, "of a request"},
    {"--max-logit-bias", &RequestLimits::max_logit_bias, 0, 64, "ids a request may bias"},
};

}  // namespace

std::span<const RequestLimitOption> request_limit_options() { return kLimitOptions; }

std::optional<FieldViolation> validate(const RequestFields& request, const RequestLimits& limits) {
  if (auto bad = check_request_id(request.request_id)) return bad;
  if (auto bad = check_prompt(request, limits)) return bad;
  if (auto bad = check_sampling(request, limits)) return bad;
  if (auto bad = check_lengths(request, limits)) return bad;
  if (auto bad = check_stops(request, limits)) return bad;
  if (auto bad = check_output(request, limits)) return bad;
  return check_resume(request, limits);
}

}  // namespace trireme
