#include "engine/tokenizer/tokenizer_config.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/vocabulary.h"

namespace trireme::tok {
namespace {

constexpr const char* kNamedTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                        "pad_token", "cls_token", "mask_token"};

// A token is written as its text or as an object with it.
std::string parse_content(const JsonNode& node) {
  if (node.is_null()) return "";
  return node.value().is_object() ? node.member("content").as_string() : node.as_string();
}

std::optional<bool> parse_flag(const JsonNode& root, const char* key) {
  const JsonNode node = root.member(key);
  if (node.is_null()) return std::nullopt;
  return node.as_bool();
}

}  // namespace

TokenizerConfig TokenizerConfig::parse(const JsonNode& root) {
  TokenizerConfig config;
  const JsonNode added = root.member("added_tokens_decoder");
  if (!added.is_null()) {
    added.for_each_member([&](const std::string& key, const JsonNode& node) {
      int32_t id = -1;
      if (!absl::SimpleAtoi(key, &id) || id < 0 || id > kMaxTokenId) {
        return node.fail(absl::StrCat("the key is no id, wanted 0 to ", kMaxTokenId));
      }
      config.added_tokens.emplace_back(id, AddedVocabulary::parse_token(node));
    });
  }
  config.bos_token = parse_content(root.member("bos_token"));
  config.eos_token = parse_content(root.member("eos_token"));
  for (const char* key : kNamedTokens) config.special_tokens.push_back(parse_content(root.member(key)));
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    const JsonNode list = root.member(key);
    if (!list.value().is_array())
      continue;  // extra_special_tokens may be an object of names, as in image models
    list.for_each_element(
        [&](const JsonNode& node) { config.special_tokens.push_back(parse_content(node)); });
  }
  config.add_bos_token = parse_flag(root, "add_bos_token");
  config.add_eos_token = parse_flag(root, "add_eos_token");
  return config;
}

}  // namespace trireme::tok
