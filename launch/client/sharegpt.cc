#include "launch/client/sharegpt.h"

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "engine/json_document.h"

namespace trireme::client {
namespace {

using Json = nlohmann::json;

constexpr uintmax_t kMostBytes = uintmax_t{4} << 30;

/// Takes "value" of the first two turns of each entry; looks at nothing else but what would be wrong.
class Reader final : public nlohmann::json_sax<Json> {
 public:
  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("a boolean"); }
  bool number_integer(number_integer_t) override { return value("a number"); }
  bool number_unsigned(number_unsigned_t) override { return value("a number"); }
  bool number_float(number_float_t, const string_t&) override { return value("a number"); }
  bool binary(binary_t&) override { return value("bytes"); }
  bool string(string_t& text) override {
    if (!at_value()) return value("a text");
    has_value_ = true;
    if (num_turns_ == 1) current_.prompt = std::move(text);
    if (num_turns_ == 2) current_.answer = std::move(text);
    return true;
  }
  bool start_object(size_t) override {
    if (!open("an object")) return false;
    if (depth_ == 2) begin_entry();
    if (in_conversations_ && depth_ == 4) {
      ++num_turns_;
      has_value_ = false;
    }
    return true;
  }
  bool start_array(size_t) override {
    if (!open("a list")) return false;
    if (depth_ == 3 && key_ == "conversations") in_conversations_ = has_conversations_ = true;
    return true;
  }
  bool end_object() override {
    const int depth = depth_--;
    if (in_conversations_ && depth == 4 && !has_value_) return fail(turn() + ".value: is missing");
    return depth == 2 ? end_entry() : true;
  }
  bool end_array() override {
    if (depth_-- == 3) in_conversations_ = false;
    return true;
  }
  bool key(string_t& name) override {
    key_ = name;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    fault = describe_parse_error(position, error);
    return false;
  }

  std::vector<Conversation> conversations;
  std::string fault;

 private:
  std::string turn() const { return absl::StrCat("conversations[", num_turns_ - 1, "]"); }
  bool at_value() const { return in_conversations_ && depth_ == 4 && key_ == "value"; }
  bool fail(const std::string& what) {
    fault = num_entries_ > 0 ? absl::StrCat("entry ", num_entries_ - 1, ": ", what) : what;
    return false;
  }
  /// Something that is no container, and no text of a turn.
  bool value(const char* got) {
    if (at_value()) return fail(absl::StrCat(turn(), ".value: got ", got, ", wanted a text"));
    return check_place(got);
  }
  /// Entries are objects in one list, "conversations" is a list of objects.
  bool check_place(const std::string& got) {
    if (depth_ == 0 && got != "a list") return fail("got " + got + ", wanted a list of conversations");
    if (depth_ == 1 && got != "an object") {
      ++num_entries_;
      return fail("got " + got + ", wanted an object with \"conversations\"");
    }
    if (depth_ == 2 && key_ == "conversations" && got != "a list")
      return fail("conversations: got " + got + ", wanted a list");
    if (depth_ == 3 && in_conversations_ && got != "an object") {
      ++num_turns_;
      return fail(turn() + ": got " + got + ", wanted an object with \"value\"");
    }
    return true;
  }
  bool open(const char* got) {
    if (!value(got)) return false;
    if (depth_ == kMaxJsonDepth) return fail(absl::StrCat("nested deeper than ", kMaxJsonDepth, " levels"));
    ++depth_;
    return true;
  }
  void begin_entry() {
    ++num_entries_;
    num_turns_ = 0;
    has_conversations_ = false;
    current_ = {};
  }
  bool end_entry() {
    if (!has_conversations_) return fail("conversations: is missing");
    if (!current_.prompt.empty() && !current_.answer.empty()) conversations.push_back(std::move(current_));
    return true;
  }

  int depth_ = 0;
  size_t num_entries_ = 0, num_turns_ = 0;
  bool in_conversations_ = false, has_conversations_ = false, has_value_ = false;
  std::string key_;
  Conversation current_;
};

}  // namespace

absl::StatusOr<std::vector<Conversation>> read_sharegpt(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  }
  const uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error || bytes > kMostBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": got ", bytes, " bytes, wanted at most ", kMostBytes));
  }
  std::ifstream file(path, std::ios::binary);
  Reader reader;
  if (!Json::sax_parse(file, &reader)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", reader.fault));
  }
  if (reader.conversations.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no conversation of two turns"));
  }
  return std::move(reader.conversations);
}

}  // namespace trireme::client
