#include "engine/tokenizer/post_processor.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/vocabulary.h"

namespace trireme::tok {

PostProcessor PostProcessor::parse(const JsonNode& node) {
  PostProcessor processor;
  processor.parse_into(node);
  return processor;
}

PostProcessor PostProcessor::around(std::vector<int32_t> begin, std::vector<int32_t> end) {
  PostProcessor processor;
  Template pieces = std::move(begin);
  pieces.push_back(kText);
  pieces.insert(pieces.end(), end.begin(), end.end());
  processor.templates_.push_back(std::move(pieces));
  return processor;
}

void PostProcessor::parse_into(const JsonNode& node) {
  if (node.is_null()) return;
  const std::string kind = node.kind();
  if (!node.ok()) return;
  if (kind == "Sequence") {
    node.member("processors").for_each_element([&](const JsonNode& part) { parse_into(part); });
  } else if (kind == "TemplateProcessing") {
    templates_.push_back(parse_template(node));
  } else if (kind != "ByteLevel") {  // which moves offsets only
    node.fail_kind("post-processor", kind, "Sequence, TemplateProcessing, ByteLevel");
  }
}

// "single" lists {"SpecialToken": {"id": name}} and {"Sequence": {"id": "A"}}; "special_tokens" gives each
// name its ids. "pair" is for two texts, which nobody asks for here.
PostProcessor::Template PostProcessor::parse_template(const JsonNode& node) {
  Template pieces;
  const JsonNode special_tokens = node.member("special_tokens");
  node.member("single").for_each_element([&](const JsonNode& piece) {
    const JsonNode sequence = piece.member("Sequence");
    if (!sequence.is_null()) {
      const std::string name = sequence.member("id").as_string();
      if (name != "A") sequence.fail(absl::StrCat("got sequence \"", name, "\" in \"single\", wanted \"A\""));
      return pieces.push_back(kText);
    }
    const std::string name = piece.member("SpecialToken").member("id").as_string();
    if (!piece.ok()) return;
    const JsonNode token = special_tokens.member(name.c_str());
    if (token.is_null()) return piece.fail(absl::StrCat("\"", name, "\" is not in special_tokens"));
    token.member("ids").for_each_element(
        [&](const JsonNode& id) { pieces.push_back(static_cast<int32_t>(id.as_integer(0, kMaxTokenId))); });
  });
  return pieces;
}

std::vector<int32_t> PostProcessor::ids() const {
  std::vector<int32_t> ids;
  for (const Template& pieces : templates_) {
    for (const int32_t piece : pieces) {
      if (piece != kText) ids.push_back(piece);
    }
  }
  return ids;
}

void PostProcessor::apply(std::vector<int32_t>& ids, bool add_special_tokens) const {
  for (const Template& pieces : templates_) {
    std::vector<int32_t> out;
    out.reserve(ids.size() + pieces.size());
    for (const int32_t piece : pieces) {
      if (piece == kText) {
        out.insert(out.end(), ids.begin(), ids.end());
      } else if (add_special_tokens) {
        out.push_back(piece);
      }
    }
    ids = std::move(out);
  }
}

}  // namespace trireme::tok
