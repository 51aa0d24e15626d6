#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/unicode.h"

namespace trireme::tok {
namespace {

constexpr size_t kMaxWordBytes = size_t{1} << 31;  // positions are int32_t

}  // namespace

absl::Status Bpe::encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const {
  if (word.size() >= kMaxWordBytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a word of ", word.size(), " bytes, wanted fewer than ", kMaxWordBytes));
  }
  if (ignore_merges_) {
    if (const int32_t id = vocabulary_.find(word); id >= 0) {
      ids.push_back(id);
      return absl::OkStatus();
    }
  }
  if (absl::Status status = split_into_symbols(word, scratch); !status.ok()) return status;
  merge(scratch);
  for (const BpeScratch::Symbol& symbol : scratch.symbols) {
    if (symbol.id >= 0) ids.push_back(symbol.id);
  }
  return absl::OkStatus();
}

int32_t Bpe::find_character(std::string_view character, uint32_t code_point, bool first, bool last) const {
  const bool has_prefix = !first && !continuing_subword_prefix_.empty();
  const bool has_suffix = last && !end_of_word_suffix_.empty();
  if (has_prefix || has_suffix) {
    return vocabulary_.find(absl::StrCat(has_prefix ? continuing_subword_prefix_ : "", std::string(character),
                                         has_suffix ? end_of_word_suffix_ : ""));
  }
  return code_point < character_ids_.size() ? character_ids_[code_point] : vocabulary_.find(character);
}

// One symbol per character; a character outside the vocabulary becomes its byte tokens, else the unknown
// token, else nothing.
absl::Status Bpe::split_into_symbols(std::string_view word, BpeScratch& scratch) const {
  auto& symbols = scratch.symbols;
  symbols.clear();
  const auto add = [&](int32_t id) { symbols.push_back({id, 0, 0}); };
  bool unknown = false;  // an unknown token waits; with fuse_unk it stands for all that follow
  const int32_t unk_id = unk_token_.empty() ? -1 : vocabulary_.find(unk_token_);
  for (size_t at = 0; at < word.size();) {
    const CodePoint c = decode_utf8(word, at);
    const std::string_view character = word.substr(at, c.length);
    const bool last = at + c.length == word.size();
    const int32_t id = find_character(character, c.value, at == 0, last);
    at += c.length;
    if (id >= 0) {
      if (unknown) add(unk_id);
      unknown = false;
      add(id);
      continue;
    }
    const auto has_byte = [&](char byte) { return byte_ids_[static_cast<uint8_t>(byte)] >= 0; };
    // A prefix or suffix that the character would carry falls back with it.
    const std::string text = absl::StrCat(at == c.length ? "" : continuing_subword_prefix_,
                                          std::string(character), last ? end_of_word_suffix_ : "");
    if (byte_fallback_ && std::all_of(text.begin(), text.end(), has_byte)) {
      for (const char byte : text) add(byte_ids_[static_cast<uint8_t>(byte)]);
      continue;  // a waiting unknown token stays behind: the library's order
    }
    if (unk_token_.empty()) continue;
    if (unk_id < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", std::string(character),
                       "\" is not in the vocabulary, and neither is unk_token \"", unk_token_, "\""));
    }
    if (unknown && !fuse_unk_) add(unk_id);
    unknown = true;
  }
  if (unknown) add(unk_id);
  const int32_t count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i].previous = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : -1;
  }
  return absl::OkStatus();
}

void Bpe::push_pair(BpeScratch& scratch, int32_t left) const {
  const BpeScratch::Symbol& symbol = scratch.symbols[left];
  const Merge* merge = find_merge(symbol.id, scratch.symbols[symbol.next].id);
  if (merge == nullptr) return;
  scratch.queue.push_back(static_cast<uint64_t>(merge->rank) << 32 | static_cast<uint32_t>(left));
}

void Bpe::merge(BpeScratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& queue = scratch.queue;
  const auto later = std::greater<uint64_t>();
  queue.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) push_pair(scratch, static_cast<int32_t>(i));
  std::make_heap(queue.begin(), queue.end(), later);
  const auto push = [&](int32_t left) {
    const size_t before = queue.size();
    push_pair(scratch, left);
    if (queue.size() != before) std::push_heap(queue.begin(), queue.end(), later);
  };
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), later);
    const uint64_t top = queue.back();
    queue.pop_back();
    const int32_t at = static_cast<int32_t>(top & 0xFFFFFFFF);
    BpeScratch::Symbol& left = symbols[at];
    if (left.id < 0 || left.next < 0) continue;
    BpeScratch::Symbol& right = symbols[left.next];
    // The entry is out of date when one of its two symbols has changed since. As in the library, a new pair
    // that gives the same token passes.
    const int32_t merged = merged_id_[top >> 32];
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->id != merged) continue;
    left.id = merged;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[left.next].previous = at;
    if (left.previous >= 0) push(left.previous);
    if (left.next >= 0) push(at);
  }
}

}  // namespace trireme::tok
