// The object "model" of tokenizer.json, checked.

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/unicode.h"

namespace trireme::tok {
namespace {

constexpr uint32_t kIndexedCharacters = 0x3000;  // Latin, Cyrillic, ..., GPT-2's byte characters, U+2581

}  // namespace

Bpe Bpe::parse(const JsonNode& model) {
  Bpe bpe;
  // Old files have no type; those with merges are BPE.
  const std::string kind = model.string_or("type", model.member("merges").is_null() ? "" : "BPE");
  if (kind != "BPE") {
    model.fail_kind("model", kind, "BPE");
    return bpe;
  }
  const JsonNode dropout = model.member("dropout");
  if (!dropout.is_null() && !(dropout.value().is_number() && dropout.value().get<double>() == 0.0)) {
    dropout.fail(absl::StrCat("got ", dropout.value().is_number() ? dropout.value().dump() : "no number",
                              ", wanted null or 0: encoding is deterministic here"));
  }
  bpe.unk_token_ = model.string_or("unk_token", "");
  bpe.continuing_subword_prefix_ = model.string_or("continuing_subword_prefix", "");
  bpe.end_of_word_suffix_ = model.string_or("end_of_word_suffix", "");
  bpe.fuse_unk_ = model.bool_or("fuse_unk", false);
  bpe.byte_fallback_ = model.bool_or("byte_fallback", false);
  bpe.ignore_merges_ = model.bool_or("ignore_merges", false);
  bpe.parse_vocabulary(model.member("vocab"));
  bpe.parse_merges(model.member("merges"));
  if (model.ok()) bpe.index_characters();
  return bpe;
}

void Bpe::parse_vocabulary(const JsonNode& vocab) {
  vocab.for_each_member([&](const std::string& token, const JsonNode& node) {
    const int32_t id = static_cast<int32_t>(node.as_integer(0, kMaxTokenId));
    if (!node.ok() || vocabulary_.add(token, id)) return;
    node.fail(absl::StrCat("id ", id, " is also that of \"", vocabulary_.token(id), "\""));
  });
}

void Bpe::parse_merges(const JsonNode& merges) {
  int32_t rank = 0;
  merges.for_each_element([&](const JsonNode& node) {
    const nlohmann::json& pair = node.value();
    if (pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string()) {
      add_merge(node, rank, pair[0].get_ref<const std::string&>(), pair[1].get_ref<const std::string&>());
    } else if (pair.is_string()) {
      const std::string_view text = pair.get_ref<const std::string&>();
      if (text.starts_with("#version")) return;  // the first line of a merges.txt, and no merge
      const size_t space = text.find(' ');
      if (space == text.npos || text.find(' ', space + 1) != text.npos) {
        return node.fail(
            absl::StrCat("got \"", std::string(text), "\", wanted two tokens with one space between them"));
      }
      add_merge(node, rank, text.substr(0, space), text.substr(space + 1));
    } else {
      return node.fail("wanted a string \"left right\" or an array of two strings");
    }
    ++rank;
  });
}

void Bpe::add_merge(const JsonNode& at, int32_t rank, std::string_view left, std::string_view right) {
  const auto find = [&](std::string_view token) {
    const int32_t id = vocabulary_.find(token);
    if (id < 0) at.fail(absl::StrCat("token \"", std::string(token), "\" of a merge is not in model.vocab"));
    return id;
  };
  const int32_t left_id = find(left);
  const int32_t right_id = find(right);
  if (!at.ok()) return;
  // The library cuts as many bytes as the prefix has, whatever they are.
  const size_t cut = continuing_subword_prefix_.size();
  if (right.size() < cut)
    return at.fail(absl::StrCat("\"", std::string(right), "\" is shorter than continuing_subword_prefix"));
  const int32_t merged = find(std::string(left).append(right.substr(cut)));
  if (!at.ok()) return;
  merged_id_.push_back(merged);
  merges_[static_cast<uint64_t>(left_id) << 32 | static_cast<uint32_t>(right_id)] = {rank, merged};
}

void Bpe::index_characters() {
  character_ids_.assign(kIndexedCharacters, -1);
  std::string character;
  for (uint32_t c = 0; c < kIndexedCharacters; ++c) {
    character.clear();
    append_utf8(c, character);
    character_ids_[c] = vocabulary_.find(character);
  }
  for (int byte = 0; byte < 256; ++byte)
    byte_ids_[byte] = vocabulary_.find(absl::StrFormat("<0x%02X>", byte));
}

}  // namespace trireme::tok
