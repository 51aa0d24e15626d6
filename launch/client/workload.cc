#include "launch/client/workload.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "launch/client/portable_random.h"
#include "launch/client/sharegpt.h"

namespace trireme::client {
namespace {

constexpr int64_t kMostTokens = 1 << 20;         // per part of a request
constexpr int64_t kMostPromptIds = 250'000'000;  // of all requests together, 1 GB

absl::Status bad_dataset(const std::string& text) {
  return absl::InvalidArgumentError(
      absl::StrCat("dataset: got '", text.substr(0, 128),
                   "', wanted random:IN,OUT, prefix:SHARED,UNIQUE,OUT[,GROUPS] or sharegpt:FILE, numbers "
                   "from 1 to ",
                   kMostTokens));
}

/// Numbers separated by commas, each from 1 to kMostTokens; empty when any is not.
std::vector<int64_t> parse_numbers(const std::string& text) {
  std::vector<int64_t> numbers;
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, ','))) {
    int64_t number = 0;
    const bool digits = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || !absl::SimpleAtoi(part, &number) || number < 1 || number > kMostTokens) return {};
    numbers.push_back(number);
  }
  return numbers;
}

class IdSource {
 public:
  IdSource(const PromptLimits& limits, uint64_t seed)
      : vocab_size_(static_cast<uint64_t>(limits.vocab_size)), avoided_(limits.avoided_ids), random_(seed) {}

  void append(std::vector<int32_t>& ids, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      int32_t id = draw();
      for (int tries = 0; tries < 100 && is_avoided(id); ++tries) id = draw();
      ids.push_back(id);
    }
  }

 private:
  int32_t draw() { return static_cast<int32_t>(random_.below(vocab_size_)); }
  bool is_avoided(int32_t id) const {
    return std::find(avoided_.begin(), avoided_.end(), id) != avoided_.end();
  }

  const uint64_t vocab_size_;
  const std::vector<int32_t>& avoided_;
  PortableRandom random_;
};

absl::Status check_size(const DatasetSpec& spec, const PromptLimits& limits, size_t count) {
  const int64_t prompt = spec.shared_tokens + spec.unique_tokens;
  if (limits.vocab_size < 1) return absl::InvalidArgumentError("dataset: the model has no vocabulary");
  if (prompt + spec.output_tokens > limits.max_context_len) {
    return absl::InvalidArgumentError(absl::StrCat("dataset: got ", prompt, " prompt and ",
                                                   spec.output_tokens, " output tokens, wanted at most ",
                                                   limits.max_context_len, " together, the model's context"));
  }
  if (static_cast<int64_t>(count) > kMostPromptIds / prompt) {
    return absl::InvalidArgumentError(absl::StrCat("dataset: got ", count, " prompts of ", prompt,
                                                   " tokens, wanted at most ", kMostPromptIds,
                                                   " tokens in all"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<DatasetSpec> parse_dataset(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos) return bad_dataset(text);
  const std::string kind = text.substr(0, colon), rest = text.substr(colon + 1);
  DatasetSpec spec;
  if (kind == "sharegpt") {
    if (rest.empty()) return bad_dataset(text);
    spec.kind = DatasetSpec::Kind::sharegpt;
    spec.file = rest;
    return spec;
  }
  const std::vector<int64_t> numbers = parse_numbers(rest);
  if (kind == "random" && numbers.size() == 2) {
    spec.unique_tokens = numbers[0];
    spec.output_tokens = numbers[1];
    return spec;
  }
  if (kind == "prefix" && (numbers.size() == 3 || numbers.size() == 4)) {
    spec.kind = DatasetSpec::Kind::prefix;
    spec.shared_tokens = numbers[0];
    spec.unique_tokens = numbers[1];
    spec.output_tokens = numbers[2];
    spec.num_groups = numbers.size() == 4 ? numbers[3] : 1;
    return spec;
  }
  return bad_dataset(text);
}

absl::StatusOr<std::vector<WorkItem>> make_workload(const DatasetSpec& spec, const PromptLimits& limits,
                                                    size_t count, uint64_t seed) {
  if (absl::Status status = check_size(spec, limits, count); !status.ok()) return status;
  IdSource source(limits, seed);
  const size_t num_groups = std::min(static_cast<size_t>(spec.num_groups), count);
  std::vector<std::vector<int32_t>> prefixes(num_groups);
  for (auto& prefix : prefixes) source.append(prefix, spec.shared_tokens);
  std::vector<WorkItem> items(count);
  for (size_t i = 0; i < count; ++i) {
    items[i].prompt_ids = prefixes[i % num_groups];
    source.append(items[i].prompt_ids, spec.unique_tokens);
    items[i].output_tokens = static_cast<int32_t>(spec.output_tokens);
    items[i].seed = seed + i;
  }
  return items;
}

absl::StatusOr<std::vector<WorkItem>> make_sharegpt_workload(const DatasetSpec& spec,
                                                             const PromptLimits& limits, size_t count,
                                                             uint64_t seed, const CountTokens& count_tokens) {
  auto read = read_sharegpt(spec.file);
  if (!read.ok()) return read.status();
  std::vector<Conversation> conversations = *std::move(read);
  PortableRandom random(seed);
  for (size_t i = conversations.size(); i > 1; --i)
    std::swap(conversations[i - 1], conversations[random.below(i)]);
  std::vector<WorkItem> items;
  for (Conversation& conversation : conversations) {
    if (items.size() == count) break;
    const auto prompt = count_tokens(conversation.prompt);
    if (!prompt.ok()) return prompt.status();
    const auto answer = count_tokens(conversation.answer);
    if (!answer.ok()) return answer.status();
    if (*prompt < 1 || *answer < 1 || *prompt + *answer > limits.max_context_len) continue;
    WorkItem item;
    item.text = std::move(conversation.prompt);
    item.output_tokens = static_cast<int32_t>(*answer);
    items.push_back(std::move(item));
  }
  if (items.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(spec.file, ": none of ", conversations.size(),
                                                   " conversations fits the model's context of ",
                                                   limits.max_context_len, " tokens"));
  }
  const size_t num_different = items.size();
  items.reserve(count);
  while (items.size() < count) items.push_back(items[items.size() % num_different]);
  for (size_t i = 0; i < count; ++i) items[i].seed = seed + i;
  return items;
}

}  // namespace trireme::client
