#include "engine/tokenizer/json_node.h"

#include "absl/strings/str_cat.h"
#include "engine/json_document.h"
#include "engine/tokenizer/unicode.h"

namespace trireme::tok {
namespace {

const nlohmann::json kNull;

}  // namespace

JsonNode JsonNode::member(const char* key) const {
  std::string path = absl::StrCat(path_, ".", key);
  if (!value_->is_object()) {
    fail_type("an object");
    return JsonNode(kNull, std::move(path), status_);
  }
  const auto found = value_->find(key);
  return JsonNode(found == value_->end() ? kNull : *found, std::move(path), status_);
}

void JsonNode::for_each_element(const std::function<void(JsonNode)>& visit) const {
  if (!value_->is_array()) return fail_type("an array");
  for (size_t i = 0; i < value_->size() && ok(); ++i) {
    visit(JsonNode((*value_)[i], absl::StrCat(path_, "[", i, "]"), status_));
  }
}

void JsonNode::for_each_member(const std::function<void(const std::string&, JsonNode)>& visit) const {
  if (!value_->is_object()) return fail_type("an object");
  for (auto it = value_->begin(); it != value_->end() && ok(); ++it) {
    visit(it.key(), JsonNode(it.value(), absl::StrCat(path_, "[\"", it.key(), "\"]"), status_));
  }
}

std::string JsonNode::as_string() const {
  if (value_->is_string()) return value_->get_ref<const std::string&>();
  fail_type("a string");
  return "";
}

int64_t JsonNode::as_integer(int64_t lowest, int64_t highest) const {
  const bool fits = value_->is_number_unsigned() ? value_->get<uint64_t>() <= static_cast<uint64_t>(highest)
                                                 : value_->is_number_integer();
  if (fits) {
    const int64_t number = value_->get<int64_t>();
    if (number >= lowest && number <= highest) return number;
  }
  fail_type(absl::StrCat("an integer of ", lowest, " to ", highest).c_str());
  return lowest;
}

bool JsonNode::as_bool() const {
  if (value_->is_boolean()) return value_->get<bool>();
  fail_type("true or false");
  return false;
}

std::string JsonNode::string_or(const char* key, std::string fallback) const {
  const JsonNode node = member(key);
  return node.is_null() ? fallback : node.as_string();
}

bool JsonNode::bool_or(const char* key, bool fallback) const {
  const JsonNode node = member(key);
  return node.is_null() ? fallback : node.as_bool();
}

std::string JsonNode::as_character() const {
  std::string text = as_string();
  if (ok() && (text.empty() || decode_utf8(text, 0).length != text.size())) fail_type("one single character");
  return text;
}

void JsonNode::fail(const std::string& message) const {
  if (status_->ok()) *status_ = absl::InvalidArgumentError(absl::StrCat(path_, ": ", message));
}

void JsonNode::fail_kind(const std::string& what, const std::string& got, const std::string& known) const {
  fail(absl::StrCat("unknown kind of ", what, " \"", got, "\", wanted one of ", known));
}

void JsonNode::fail_type(const char* wanted) const {
  fail(absl::StrCat("got ", is_null() ? "nothing" : describe_json(*value_), ", wanted ", wanted));
}

}  // namespace trireme::tok
