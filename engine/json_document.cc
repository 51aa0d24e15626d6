#include "engine/json_document.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <set>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"

namespace trireme {
namespace {

constexpr size_t kMaxShownBytes = 80;
constexpr size_t kMaxShownParseError = 200;
constexpr size_t kMaxListLength = 64;

/// Builds nothing: looks for the faults that must be found before a document is built.
class Checker : public nlohmann::json_sax<nlohmann::json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return enter(); }
  bool start_array(size_t) override { return enter(); }
  bool end_object() override { return leave(); }
  bool end_array() override { return leave(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    fault = absl::StrCat("key ", describe_json(name), " twice in one object");
    return false;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    fault = describe_parse_error(position, error);
    return false;
  }

  std::string fault;

 private:
  bool enter() {
    if (keys_.size() == kMaxJsonDepth) {
      fault = absl::StrCat("nested deeper than ", kMaxJsonDepth, " levels");
      return false;
    }
    keys_.emplace_back();
    return true;
  }
  bool leave() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::set<std::string>> keys_;  // of each open object or array
};

absl::Status read_all(int fd, const std::string& path, std::string* text) {
  size_t done = 0;
  while (done < text->size()) {
    const ssize_t got = read(fd, text->data() + done, text->size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::DataLossError(absl::StrCat(path, ": byte ", done, ": ", std::strerror(errno)));
    if (got == 0) {
      return absl::DataLossError(
          absl::StrCat(path, ": ends at byte ", done, ", wanted ", text->size(), " bytes"));
    }
    done += static_cast<size_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> read_small_file(const std::string& path, uint64_t max_bytes) {
  // Not blocking: opening a pipe must not wait for its writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    const std::string message = absl::StrCat(path, ": ", std::strerror(errno));
    return errno == ENOENT || errno == ENOTDIR ? absl::NotFoundError(message)
                                               : absl::FailedPreconditionError(message);
  }
  struct stat info = {};
  absl::Status status;
  std::string text;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    status = absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  } else if (static_cast<uint64_t>(info.st_size) > max_bytes) {
    status = absl::InvalidArgumentError(
        absl::StrCat(path, ": got ", info.st_size, " bytes, wanted at most ", max_bytes));
  } else {
    text.resize(static_cast<size_t>(info.st_size));
    status = read_all(fd, path, &text);
  }
  close(fd);
  if (!status.ok()) return status;
  return text;
}

absl::StatusOr<nlohmann::json> parse_json_object(std::string_view text, const std::string& where) {
  Checker checker;
  if (!nlohmann::json::sax_parse(text, &checker)) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": ", checker.fault));
  }
  nlohmann::json document = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": got ", document.type_name(), ", wanted an object"));
  }
  return document;
}

std::string describe_parse_error(size_t position, const nlohmann::json::exception& error) {
  const std::string_view what = error.what();  // quotes the last token, whatever bytes and length it has
  const size_t shown = std::min(what.size(), kMaxShownParseError);
  return absl::StrCat("not JSON at byte ", position, ": ", absl::CHexEscape({what.data(), shown}));
}

std::string describe_json(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  if (text.size() > kMaxShownBytes) text = text.substr(0, kMaxShownBytes) + "...";
  return text;
}

const nlohmann::json* JsonFields::find(const std::string& field) const {
  const auto found = object_.find(field);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::fail(const std::string& field, const std::string& got, const std::string& wanted) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": ", field, ": got ", got, ", wanted ", wanted));
}

int64_t JsonFields::integer(const std::string& field, int64_t min, int64_t max,
                            std::optional<int64_t> fallback) {
  const std::string wanted = absl::StrCat("an integer from ", min, " to ", max);
  const nlohmann::json* value = find(field);
  if (value == nullptr) {
    if (!fallback.has_value()) fail(field, "nothing", wanted);
    return fallback.value_or(min);
  }
  // A number above the signed range reads as unsigned, one beyond that as a float.
  const bool fits = value->is_number_integer() &&
                    (!value->is_number_unsigned() || value->get<uint64_t>() <= INT64_MAX) &&
                    value->get<int64_t>() >= min && value->get<int64_t>() <= max;
  if (fits) return value->get<int64_t>();
  fail(field, describe_json(*value), wanted);
  return fallback.value_or(min);
}

double JsonFields::number(const std::string& field, double min, double max, std::optional<double> fallback) {
  const std::string wanted = absl::StrCat("a number from ", min, " to ", max);
  const nlohmann::json* value = find(field);
  if (value == nullptr) {
    if (!fallback.has_value()) fail(field, "nothing", wanted);
    return fallback.value_or(min);
  }
  if (value->is_number()) {
    const double number = value->get<double>();
    if (std::isfinite(number) && number >= min && number <= max) return number;
  }
  fail(field, describe_json(*value), wanted);
  return fallback.value_or(min);
}

bool JsonFields::boolean(const std::string& field, bool fallback) {
  const nlohmann::json* value = find(field);
  if (value == nullptr) return fallback;
  if (value->is_boolean()) return value->get<bool>();
  fail(field, describe_json(*value), "true or false");
  return fallback;
}

std::string JsonFields::text(const std::string& field, std::optional<std::string> fallback) {
  const nlohmann::json* value = find(field);
  if (value != nullptr && value->is_string()) return value->get<std::string>();
  if (value != nullptr || !fallback.has_value()) {
    fail(field, value == nullptr ? "nothing" : describe_json(*value), "a text");
  }
  return fallback.value_or("");
}

std::vector<int> JsonFields::integers(const std::string& field, int min, int max, std::vector<int> fallback) {
  const nlohmann::json* value = find(field);
  if (value == nullptr) return fallback;
  const std::string wanted = absl::StrCat("an integer from ", min, " to ", max, ", or a list of at most ",
                                          kMaxListLength, " of them");
  const nlohmann::json list = value->is_array() ? *value : nlohmann::json::array({*value});
  std::vector<int> result;
  for (const nlohmann::json& item : list) {
    const bool fits =
        item.is_number_integer() && (!item.is_number_unsigned() || item.get<uint64_t>() <= INT64_MAX) &&
        item.get<int64_t>() >= min && item.get<int64_t>() <= max && result.size() < kMaxListLength;
    if (!fits) {
      fail(field, describe_json(*value), wanted);
      return fallback;
    }
    result.push_back(item.get<int>());
  }
  return result;
}

}  // namespace trireme
