#pragma once
// JSON files of a model directory: read with a size cap, parsed with a depth cap, fields taken with their
// type and range checked. No exception leaves here.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace trireme {

/// Levels of nesting that a file may have: parsing is iterative, but copying a value is recursive.
constexpr int kMaxJsonDepth = 64;

/// Text of a regular file. NOT_FOUND where there is none, INVALID_ARGUMENT for anything but a regular file or
/// more than `max_bytes`, DATA_LOSS where reading fails.
absl::StatusOr<std::string> read_small_file(const std::string& path, uint64_t max_bytes);

/// INVALID_ARGUMENT naming `where` and the byte: not JSON, deeper than kMaxJsonDepth, a key twice in one
/// object, or not an object at the top.
absl::StatusOr<nlohmann::json> parse_json_object(std::string_view text, const std::string& where);

/// "not JSON at byte ...", with what the parser says, in printable characters and of readable length.
std::string describe_parse_error(size_t position, const nlohmann::json::exception& error);

/// A value for an error message, cut to a readable length.
std::string describe_json(const nlohmann::json& value);

/// Takes fields from one object. null counts as absent. The first fault is kept and named as
/// "where: field: got ..., wanted ..."; after it every call gives the fallback, so that a reader of many
/// fields looks at status() once.
class JsonFields {
 public:
  /// `object` must outlive this.
  JsonFields(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {}

  /// nullptr where absent or null.
  const nlohmann::json* find(const std::string& field) const;
  bool has(const std::string& field) const { return find(field) != nullptr; }

  /// Required fields have no fallback.
  int64_t integer(const std::string& field, int64_t min, int64_t max, std::optional<int64_t> fallback);
  /// Finite and in [min, max].
  double number(const std::string& field, double min, double max, std::optional<double> fallback);
  bool boolean(const std::string& field, bool fallback);
  std::string text(const std::string& field, std::optional<std::string> fallback);
  /// An integer or a list of at most 64 integers, each in [min, max].
  std::vector<int> integers(const std::string& field, int min, int max, std::vector<int> fallback);

  const absl::Status& status() const { return status_; }
  void fail(const std::string& field, const std::string& got, const std::string& wanted);
  /// Takes over the fault of a nested block's fields.
  void keep(const absl::Status& status) { status_.Update(status); }

 private:
  const nlohmann::json& object_;
  std::string where_;
  absl::Status status_;
};

}  // namespace trireme
