#pragma once
// A checked view of parsed JSON: every access says what it wants, and the first thing that is not so becomes
// a status naming the file and the path inside it.

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "nlohmann/json.hpp"

namespace trireme::tok {

/// A value and its path. After an error, getters return harmless values and `status` keeps the first one, so
/// a caller reads everything and looks once. Cheap to copy; `value` and `status` must outlive it.
class JsonNode {
 public:
  JsonNode(const nlohmann::json& value, std::string path, absl::Status* status)
      : value_(&value), path_(std::move(path)), status_(status) {}

  const nlohmann::json& value() const { return *value_; }
  bool is_null() const { return value_->is_null(); }
  bool ok() const { return status_->ok(); }
  absl::Status status() const { return *status_; }
  const std::string& path() const { return path_; }

  /// The member, or a null node when it is absent; an error when this is no object.
  JsonNode member(const char* key) const;
  void for_each_element(const std::function<void(JsonNode)>& visit) const;  // wants an array
  void for_each_member(const std::function<void(const std::string&, JsonNode)>& visit) const;

  std::string as_string() const;
  int64_t as_integer(int64_t lowest, int64_t highest) const;
  bool as_bool() const;

  /// Of an object's member; absent or null gives the default.
  std::string string_or(const char* key, std::string fallback) const;
  bool bool_or(const char* key, bool fallback) const;
  /// The member "type" of an object.
  std::string kind() const { return member("type").as_string(); }
  /// One single character (code point) as UTF-8.
  std::string as_character() const;

  /// Records "<path>: <message>" unless an earlier error is kept.
  void fail(const std::string& message) const;
  /// Records that the kind `got` is unknown, with the known ones.
  void fail_kind(const std::string& what, const std::string& got, const std::string& known) const;

 private:
  void fail_type(const char* wanted) const;

  const nlohmann::json* value_;
  std::string path_;
  absl::Status* status_;
};

}  // namespace trireme::tok
