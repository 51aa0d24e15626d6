#include "engine/parallel/agreement.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace trireme {
namespace {

/// int32 words that hold any bytes: the count, then the bytes.
std::vector<int32_t> to_words(const std::string& bytes) {
  std::vector<int32_t> words(1 + (bytes.size() + 3) / 4);
  words[0] = static_cast<int32_t>(bytes.size());
  std::memcpy(words.data() + 1, bytes.data(), bytes.size());
  return words;
}

absl::StatusOr<std::string> from_words(const std::vector<int32_t>& words) {
  const bool fits =
      !words.empty() && words[0] >= 0 && static_cast<size_t>(words[0]) <= (words.size() - 1) * 4;
  if (!fits) return absl::InternalError("agreement: a message with a wrong length");
  return std::string(reinterpret_cast<const char*>(words.data() + 1), static_cast<size_t>(words[0]));
}

/// Gathers, lets rank 0 decide, and gives every rank the decision.
template <typename Decide>
absl::StatusOr<std::string> decide(HostGroup& group, const std::string& mine,
                                   std::chrono::milliseconds deadline, Decide decision) {
  auto all = group.gather(mine, 0, deadline);
  if (!all.ok()) return all.status();
  std::vector<int32_t> words;
  if (group.rank() == 0) words = to_words(decision(*all));
  absl::Status sent = group.broadcast(words, 0, deadline);
  if (!sent.ok()) return sent;
  return from_words(words);
}

}  // namespace

absl::Status agree_on_success(HostGroup& group, const absl::Status& mine,
                              std::chrono::milliseconds deadline) {
  // The first byte is the code, the rest the message.
  std::string report(1, static_cast<char>(mine.code()));
  absl::StrAppend(&report, std::string(mine.message()));
  auto verdict = decide(group, report, deadline, [&](const std::vector<std::string>& reports) {
    for (size_t rank = 0; rank < reports.size(); ++rank) {
      const std::string& one = reports[rank];
      if (!one.empty() && one[0] == 0) continue;
      const std::string text = one.empty() ? "an empty report" : one.substr(1);
      const std::string where = reports.size() > 1 ? absl::StrCat("rank ", rank, ": ") : "";
      return absl::StrCat(one.substr(0, 1), where, text);
    }
    return std::string(1, '\0');
  });
  if (!verdict.ok()) return verdict.status();
  if (verdict->empty()) return absl::InternalError("agreement: an empty verdict");
  return absl::Status(static_cast<absl::StatusCode>((*verdict)[0]), verdict->substr(1));
}

absl::StatusOr<int64_t> agree_on_minimum(HostGroup& group, int64_t mine, std::chrono::milliseconds deadline) {
  const std::string bytes(reinterpret_cast<const char*>(&mine), sizeof(mine));
  auto least = decide(group, bytes, deadline, [](const std::vector<std::string>& all) {
    const auto value = [](const std::string& one) {
      int64_t number = 0;
      std::memcpy(&number, one.data(), std::min(one.size(), sizeof(number)));
      return number;
    };
    return *std::min_element(all.begin(), all.end(),
                             [&](const std::string& a, const std::string& b) { return value(a) < value(b); });
  });
  if (!least.ok()) return least.status();
  if (least->size() != sizeof(int64_t)) return absl::InternalError("agreement: a number of the wrong size");
  int64_t number = 0;
  std::memcpy(&number, least->data(), sizeof(number));
  return number;
}

absl::StatusOr<bool> agree_on_any(HostGroup& group, bool mine, std::chrono::milliseconds deadline) {
  const auto none = agree_on_minimum(group, mine ? 0 : 1, deadline);
  if (!none.ok()) return none.status();
  return *none == 0;
}

// All of them one behind the other, each after its length.
absl::StatusOr<std::vector<std::string>> share_bytes(HostGroup& group, const std::string& mine,
                                                     std::chrono::milliseconds deadline) {
  auto joined = decide(group, mine, deadline, [](const std::vector<std::string>& all) {
    std::string bytes;
    for (const std::string& one : all) {
      const auto length = static_cast<uint32_t>(one.size());
      bytes.append(reinterpret_cast<const char*>(&length), sizeof(length));
      bytes += one;
    }
    return bytes;
  });
  if (!joined.ok()) return joined.status();
  std::vector<std::string> parts;
  for (size_t at = 0; at < joined->size();) {
    uint32_t length = 0;
    if (joined->size() - at < sizeof(length)) break;
    std::memcpy(&length, joined->data() + at, sizeof(length));
    at += sizeof(length);
    if (joined->size() - at < length) break;
    parts.push_back(joined->substr(at, length));
    at += length;
  }
  if (parts.size() != static_cast<size_t>(group.size()))
    return absl::InternalError("shared bytes: not one part for each rank");
  return parts;
}

}  // namespace trireme
