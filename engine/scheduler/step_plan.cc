#include "engine/scheduler/step_plan.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace trireme {
namespace {

static_assert(std::endian::native == std::endian::little, "plans travel as the host's words");

constexpr int32_t kMagic = 0x50535254;  // "TRSP"
constexpr int32_t kVersion = 2;
constexpr int32_t kLastKind = static_cast<int32_t>(StepPlan::Kind::kTrace);
constexpr int32_t kAfterIdle = 1 << 8;  // set in the word of the kind
// magic, version, kind, step (2), num_seqs, num_table_blocks, num_tokens, num_sampled, num_biases,
// num_banned, num_history, num_prompt_logprobs
constexpr size_t kHeaderWords = 13;
constexpr size_t kSamplingWords = sizeof(SamplingRow) / sizeof(int32_t);
static_assert(sizeof(SamplingRow) == 64 && std::is_trivially_copyable_v<SamplingRow>,
              "no padding may travel");

absl::Status refuse(absl::string_view field, int64_t got, absl::string_view wanted) {
  return absl::InvalidArgumentError(absl::StrCat("step plan: ", field, ": got ", got, ", wanted ", wanted));
}

absl::Status refuse_at(absl::string_view field, size_t index, int64_t got, absl::string_view wanted) {
  return refuse(absl::StrCat(field, "[", index, "]"), got, wanted);
}

std::string range(int64_t first, int64_t last) { return absl::StrCat("in [", first, ", ", last, "]"); }

bool in_range(int64_t value, int64_t first, int64_t last) { return value >= first && value <= last; }

int64_t blocks_for(int64_t num_tokens, const StepPlanLimits& limits) {
  return (num_tokens + limits.block_size - 1) / limits.block_size;
}

struct Counts {
  int64_t seqs, table_blocks, tokens, sampled, biases, banned, history, prompt_logprobs;
  uint64_t num_words() const {
    return kHeaderWords +
           static_cast<uint64_t>(5 * seqs + table_blocks + tokens + 2 * biases + banned + history +
                                 3 * prompt_logprobs) +
           kSamplingWords * static_cast<uint64_t>(sampled);
  }
};

absl::Status check_header(const int32_t* words, size_t num_words, const StepPlanLimits& limits,
                          Counts& counts) {
  if (num_words < kHeaderWords)
    return refuse("words", static_cast<int64_t>(num_words), absl::StrCat("at least ", kHeaderWords));
  if (words[0] != kMagic) return refuse("magic", words[0], absl::StrCat(kMagic));
  if (words[1] != kVersion) return refuse("version", words[1], absl::StrCat(kVersion));
  const int32_t kind = words[2] & ~kAfterIdle;
  if (!in_range(kind, 1, kLastKind)) return refuse("kind", kind, range(1, kLastKind));
  counts = {words[5], words[6], words[7], words[8], words[9], words[10], words[11], words[12]};
  const bool run = kind == static_cast<int32_t>(StepPlan::Kind::kRun);
  const int64_t first = run ? 1 : 0;
  const int64_t last = run ? INT32_MAX : 0;  // plans of other kinds are empty
  const auto check = [&](const char* field, int64_t count, int64_t least, int64_t most) {
    most = std::min(most, last);
    return in_range(count, least, most) ? absl::OkStatus() : refuse(field, count, range(least, most));
  };
  if (absl::Status s = check("num_seqs", counts.seqs, first, limits.max_num_seqs); !s.ok()) return s;
  const int64_t most_blocks = counts.seqs * blocks_for(limits.max_context_len, limits);
  if (absl::Status s = check("num_table_blocks", counts.table_blocks, first, most_blocks); !s.ok()) return s;
  if (absl::Status s = check("num_tokens", counts.tokens, first, limits.max_num_tokens); !s.ok()) return s;
  if (absl::Status s = check("num_sampled", counts.sampled, 0, counts.seqs); !s.ok()) return s;
  const int64_t sampled = counts.sampled, most_history = sampled * limits.max_context_len;
  if (absl::Status s = check("num_biases", counts.biases, 0, sampled * kMaxBiases); !s.ok()) return s;
  if (absl::Status s = check("num_banned", counts.banned, 0, sampled * kMaxBanned); !s.ok()) return s;
  if (absl::Status s = check("num_history", counts.history, 0, most_history); !s.ok()) return s;
  absl::Status s = check("num_prompt_logprobs", counts.prompt_logprobs, 0, counts.tokens);
  if (!s.ok()) return s;
  if (counts.num_words() != num_words)
    return refuse("words", static_cast<int64_t>(num_words), absl::StrCat(counts.num_words()));
  return absl::OkStatus();
}

absl::Status check_sequence(const StepPlan& plan, size_t i, const StepPlanLimits& limits) {
  const int64_t max_context = limits.max_context_len;
  if (!in_range(plan.slots[i], -1, limits.max_num_seqs - 1))
    return refuse_at("slots", i, plan.slots[i], range(-1, limits.max_num_seqs - 1));
  // Plans are small, and a search needs no memory.
  for (size_t j = 0; plan.slots[i] != -1 && j < i; ++j) {
    if (plan.slots[j] == plan.slots[i])
      return refuse_at("slots", i, plan.slots[i], absl::StrCat("another than slots[", j, "]"));
  }
  if (!in_range(plan.context_lens[i], 1, max_context))
    return refuse_at("context_lens", i, plan.context_lens[i], range(1, max_context));
  if (!in_range(plan.query_lens[i], 1, plan.context_lens[i]))
    return refuse_at("query_lens", i, plan.query_lens[i], range(1, plan.context_lens[i]));
  const int64_t least_blocks = blocks_for(plan.context_lens[i], limits);
  const int64_t most_blocks = blocks_for(max_context, limits);
  if (!in_range(plan.num_blocks[i], least_blocks, most_blocks))
    return refuse_at("num_blocks", i, plan.num_blocks[i], range(least_blocks, most_blocks));
  const int32_t last_sample = plan.slots[i] == -1 ? 0 : 1;  // padding has no slot to keep a token
  if (!in_range(plan.sample[i], 0, last_sample))
    return refuse_at("sample", i, plan.sample[i], range(0, last_sample));
  return absl::OkStatus();
}

absl::Status check_sums(const StepPlan& plan) {
  int64_t blocks = 0, tokens = 0, sampled = 0, biases = 0, banned = 0, history = 0;
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    blocks += plan.num_blocks[i];
    tokens += plan.query_lens[i];
    sampled += plan.sample[i];
  }
  if (blocks != static_cast<int64_t>(plan.block_tables.size()))
    return refuse("sum of num_blocks", blocks, absl::StrCat(plan.block_tables.size()));
  if (tokens != plan.num_tokens())
    return refuse("sum of query_lens", tokens, absl::StrCat(plan.num_tokens()));
  if (sampled != plan.num_sampled())
    return refuse("sum of sample", sampled, absl::StrCat(plan.num_sampled()));
  for (const SamplingRow& row : plan.sampling) {
    biases += row.num_biases;
    banned += row.num_banned;
    history += int64_t{row.num_history_prompt} + row.num_history_output;
  }
  if (biases != static_cast<int64_t>(plan.bias_ids.size()))
    return refuse("sum of num_biases", biases, absl::StrCat(plan.bias_ids.size()));
  if (banned != static_cast<int64_t>(plan.banned_ids.size()))
    return refuse("sum of num_banned", banned, absl::StrCat(plan.banned_ids.size()));
  if (history != static_cast<int64_t>(plan.history_ids.size()))
    return refuse("sum of num_history", history, absl::StrCat(plan.history_ids.size()));
  return absl::OkStatus();
}

absl::Status check_rows(const StepPlan& plan, const StepPlanLimits& limits) {
  for (size_t i = 0; i < plan.sampling.size(); ++i) {
    const SamplingRow& row = plan.sampling[i];
    if (absl::Status s = check_sampling_row(row); !s.ok())
      return absl::InvalidArgumentError(absl::StrCat("step plan: sampling[", i, "]: ", s.message()));
    const int64_t history = int64_t{row.num_history_prompt} + row.num_history_output;
    if (!in_range(history, 0, limits.max_context_len))
      return refuse_at("history of sampling", i, history, range(0, limits.max_context_len));
  }
  return absl::OkStatus();
}

absl::Status check_all_ids(const char* field, const std::vector<int32_t>& ids, int32_t limit) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!in_range(ids[i], 0, limit - 1)) return refuse_at(field, i, ids[i], range(0, limit - 1));
  }
  return absl::OkStatus();
}

absl::Status check_lists(const StepPlan& plan, const StepPlanLimits& limits) {
  const int32_t vocab = limits.vocab_size;
  absl::Status status = check_all_ids("bias_ids", plan.bias_ids, vocab);
  status.Update(check_all_ids("banned_ids", plan.banned_ids, vocab));
  status.Update(check_all_ids("history_ids", plan.history_ids, vocab));
  status.Update(check_all_ids("logprob_targets", plan.logprob_targets, vocab));
  status.Update(check_all_ids("logprob_tops", plan.logprob_tops, kMaxTopLogprobs + 1));
  status.Update(check_all_ids("logprob_tokens", plan.logprob_tokens, plan.num_tokens()));
  for (size_t i = 0; i < plan.biases.size(); ++i) {
    if (!std::isfinite(plan.biases[i]))
      status.Update(absl::InvalidArgumentError(
          absl::StrCat("step plan: biases[", i, "]: got ", plan.biases[i], ", wanted a finite number")));
  }
  for (size_t i = 1; i < plan.logprob_tokens.size(); ++i) {
    const int32_t before = plan.logprob_tokens[i - 1];
    if (plan.logprob_tokens[i] <= before)
      status.Update(
          refuse_at("logprob_tokens", i, plan.logprob_tokens[i], absl::StrCat("more than ", before)));
  }
  return status;
}

absl::Status check_ids(const StepPlan& plan, const StepPlanLimits& limits) {
  for (size_t i = 0; i < plan.block_tables.size(); ++i) {
    if (!in_range(plan.block_tables[i], 0, limits.num_blocks - 1))
      return refuse_at("block_tables", i, plan.block_tables[i], range(0, limits.num_blocks - 1));
  }
  size_t token = 0;
  for (size_t i = 0; i < plan.slots.size(); ++i) {
    for (int32_t j = 0; j < plan.query_lens[i]; ++j, ++token) {
      const int32_t first = j == 0 && plan.slots[i] != -1 ? kLastToken : 0;
      if (!in_range(plan.token_ids[token], first, limits.vocab_size - 1))
        return refuse_at("token_ids", token, plan.token_ids[token], range(first, limits.vocab_size - 1));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status check_sampling_row(const SamplingRow& row) {
  const auto check = [](const char* field, double got, bool good, const char* wanted) {
    return good ? absl::OkStatus()
                : absl::InvalidArgumentError(absl::StrCat(field, ": got ", got, ", wanted ", wanted));
  };
  // A NaN fails every comparison.
  absl::Status status =
      check("temperature", row.temperature, row.temperature >= 0 && std::isfinite(row.temperature),
            "a finite number of at least 0");
  status.Update(check("top_k", row.top_k, row.top_k >= 0, "at least 0"));
  status.Update(check("top_p", row.top_p, row.top_p > 0 && row.top_p <= 1, "in (0, 1]"));
  status.Update(check("min_p", row.min_p, row.min_p >= 0 && row.min_p <= 1, "in [0, 1]"));
  status.Update(check("repetition_penalty", row.repetition_penalty,
                      row.repetition_penalty > 0 && std::isfinite(row.repetition_penalty),
                      "a finite number above 0"));
  status.Update(check("presence_penalty", row.presence_penalty, std::isfinite(row.presence_penalty),
                      "a finite number"));
  status.Update(check("frequency_penalty", row.frequency_penalty, std::isfinite(row.frequency_penalty),
                      "a finite number"));
  const auto check_count = [&](const char* field, int32_t count, int32_t most) {
    status.Update(check(field, count, in_range(count, 0, most), range(0, most).c_str()));
  };
  check_count("num_biases", row.num_biases, kMaxBiases);
  check_count("num_banned", row.num_banned, kMaxBanned);
  check_count("num_history_prompt", row.num_history_prompt, INT32_MAX);
  check_count("num_history_output", row.num_history_output, INT32_MAX);
  check_count("num_top_logprobs", row.num_top_logprobs, kMaxTopLogprobs);
  return status;
}

namespace {

/// The words of an array of 4-byte numbers or of plain structures of them.
template <typename T>
void append_words(const std::vector<T>& array, std::vector<int32_t>& out) {
  const size_t end = out.size();
  out.resize(end + array.size() * sizeof(T) / sizeof(int32_t));
  if (!array.empty()) std::memcpy(out.data() + end, array.data(), array.size() * sizeof(T));
}

template <typename T>
void take_words(const int32_t*& next, int64_t count, std::vector<T>& array) {
  array.resize(count);
  if (count > 0) std::memcpy(static_cast<void*>(array.data()), next, count * sizeof(T));
  next += count * static_cast<int64_t>(sizeof(T) / sizeof(int32_t));
}

int32_t size_word(const std::vector<int32_t>& array) { return static_cast<int32_t>(array.size()); }

}  // namespace

void pack(const StepPlan& plan, std::vector<int32_t>& out) {
  out.clear();
  out.insert(out.end(),
             {kMagic, kVersion, static_cast<int32_t>(plan.kind) | (plan.after_idle ? kAfterIdle : 0),
              static_cast<int32_t>(plan.step), static_cast<int32_t>(plan.step >> 32), plan.num_seqs(),
              size_word(plan.block_tables), plan.num_tokens(), plan.num_sampled(), size_word(plan.bias_ids),
              size_word(plan.banned_ids), size_word(plan.history_ids), plan.num_prompt_logprobs()});
  append_words(plan.slots, out);
  append_words(plan.query_lens, out);
  append_words(plan.context_lens, out);
  append_words(plan.num_blocks, out);
  append_words(plan.sample, out);
  append_words(plan.block_tables, out);
  append_words(plan.token_ids, out);
  append_words(plan.sampling, out);
  append_words(plan.bias_ids, out);
  append_words(plan.biases, out);
  append_words(plan.banned_ids, out);
  append_words(plan.history_ids, out);
  append_words(plan.logprob_tokens, out);
  append_words(plan.logprob_targets, out);
  append_words(plan.logprob_tops, out);
}

absl::Status unpack(const int32_t* words, size_t num_words, const StepPlanLimits& limits, StepPlan& plan) {
  Counts counts{};
  if (absl::Status s = check_header(words, num_words, limits, counts); !s.ok()) return s;
  plan.kind = static_cast<StepPlan::Kind>(words[2] & ~kAfterIdle);
  plan.after_idle = (words[2] & kAfterIdle) != 0;
  plan.step = static_cast<uint32_t>(words[3]) | static_cast<uint64_t>(static_cast<uint32_t>(words[4])) << 32;
  const int32_t* next = words + kHeaderWords;
  take_words(next, counts.seqs, plan.slots);
  take_words(next, counts.seqs, plan.query_lens);
  take_words(next, counts.seqs, plan.context_lens);
  take_words(next, counts.seqs, plan.num_blocks);
  take_words(next, counts.seqs, plan.sample);
  take_words(next, counts.table_blocks, plan.block_tables);
  take_words(next, counts.tokens, plan.token_ids);
  take_words(next, counts.sampled, plan.sampling);
  take_words(next, counts.biases, plan.bias_ids);
  take_words(next, counts.biases, plan.biases);
  take_words(next, counts.banned, plan.banned_ids);
  take_words(next, counts.history, plan.history_ids);
  take_words(next, counts.prompt_logprobs, plan.logprob_tokens);
  take_words(next, counts.prompt_logprobs, plan.logprob_targets);
  take_words(next, counts.prompt_logprobs, plan.logprob_tops);

  for (size_t i = 0; i < plan.slots.size(); ++i) {
    if (absl::Status s = check_sequence(plan, i, limits); !s.ok()) return s;
  }
  if (absl::Status s = check_rows(plan, limits); !s.ok()) return s;  // the sums need counts in range
  if (absl::Status s = check_sums(plan); !s.ok()) return s;
  if (absl::Status s = check_ids(plan, limits); !s.ok()) return s;
  return check_lists(plan, limits);
}

}  // namespace trireme
