// The header of a safetensors file is read as a stream of events straight into entries: a hostile header of
// 100 MB then costs no more memory than the entries it describes.

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/json_document.h"
#include "engine/weights/safetensors.h"

namespace trireme {
namespace {

constexpr size_t kMaxDimensions = 16;

struct FileDType {
  std::string_view name;
  uint64_t bits;
  std::optional<DType> dtype;
};

constexpr std::array kFileDTypes = {
    FileDType{"F32", 32, DType::f32},          FileDType{"F16", 16, DType::f16},
    FileDType{"BF16", 16, DType::bf16},        FileDType{"I32", 32, DType::i32},
    FileDType{"F64", 64, std::nullopt},        FileDType{"I64", 64, std::nullopt},
    FileDType{"U64", 64, std::nullopt},        FileDType{"U32", 32, std::nullopt},
    FileDType{"I16", 16, std::nullopt},        FileDType{"U16", 16, std::nullopt},
    FileDType{"I8", 8, std::nullopt},          FileDType{"U8", 8, std::nullopt},
    FileDType{"BOOL", 8, std::nullopt},        FileDType{"C64", 64, std::nullopt},
    FileDType{"F8_E4M3", 8, std::nullopt},     FileDType{"F8_E5M2", 8, std::nullopt},
    FileDType{"F8_E8M0", 8, std::nullopt},     FileDType{"F8_E4M3FNUZ", 8, std::nullopt},
    FileDType{"F8_E5M2FNUZ", 8, std::nullopt}, FileDType{"F6_E2M3", 6, std::nullopt},
    FileDType{"F6_E3M2", 6, std::nullopt},     FileDType{"F4", 4, std::nullopt},
};

/// Bytes of a tensor; nullopt where the product overflows or is no whole number of bytes.
std::optional<uint64_t> tensor_bytes(const std::vector<int64_t>& shape, uint64_t bits) {
  uint64_t total = bits;
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(total, static_cast<uint64_t>(size), &total)) return std::nullopt;
  }
  if (total % 8 != 0) return std::nullopt;
  return total / 8;
}

/// Level 1 is the top object, level 2 a tensor's or the metadata's, level 3 a list of a tensor.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(uint64_t header_bytes, uint64_t data_bytes, std::string file)
      : data_start_(8 + header_bytes), data_bytes_(data_bytes), file_(std::move(file)) {}

  bool null() override { return refuse("null"); }
  bool boolean(bool value) override { return refuse(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { return refuse(absl::StrCat(value)); }
  bool number_float(number_float_t, const string_t& text) override { return refuse(text); }
  bool binary(binary_t&) override { return refuse("binary data"); }
  bool number_unsigned(number_unsigned_t value) override;
  bool string(string_t& value) override;
  bool start_object(size_t) override;
  bool end_object() override;
  bool start_array(size_t) override;
  bool end_array() override {
    --level_;
    return true;
  }
  bool key(string_t& name) override;
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception& error) override {
    return fail(absl::StrCat("header: ", describe_parse_error(position, error)));
  }

  std::map<std::string, TensorEntry> entries;
  std::string fault;

 private:
  bool fail(std::string what) {
    fault = std::move(what);
    return false;
  }
  /// A value of a kind that the format does not have in this place.
  bool refuse(const std::string& got) {
    return fail(absl::StrCat(place(), ": got ", got, ", wanted ", wanted()));
  }
  std::string place() const;
  std::string wanted() const;
  bool finish_tensor();

  const uint64_t data_start_, data_bytes_;
  const std::string file_;
  int level_ = 0;
  std::string name_;   // key of level 1
  std::string field_;  // key of level 2
  std::set<std::string> seen_names_, seen_fields_;
  TensorEntry entry_;
  std::vector<uint64_t> offsets_;
};

std::string HeaderReader::place() const {
  if (level_ == 0) return "header";
  const std::string quoted = describe_json(name_);
  return level_ == 1 ? quoted : absl::StrCat(quoted, ": ", describe_json(field_));
}

std::string HeaderReader::wanted() const {
  if (level_ <= 1) return "an object";
  if (name_ == "__metadata__" || field_ == "dtype") return "a text";
  return level_ == 2 ? "a list" : "an integer that is not negative";
}

bool HeaderReader::number_unsigned(number_unsigned_t value) {
  if (level_ != 3) return refuse(absl::StrCat(value));
  if (field_ == "data_offsets") {
    if (offsets_.size() == 2) return fail(absl::StrCat(place(), ": got more than 2 numbers, wanted 2"));
    offsets_.push_back(value);
    return true;
  }
  if (entry_.shape.size() == kMaxDimensions) {
    return fail(absl::StrCat(place(), ": got more than ", kMaxDimensions, " dimensions"));
  }
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return refuse(absl::StrCat(value));
  entry_.shape.push_back(static_cast<int64_t>(value));
  return true;
}

bool HeaderReader::string(string_t& value) {
  if (level_ == 2 && name_ == "__metadata__") return true;
  if (level_ != 2 || field_ != "dtype") return refuse(describe_json(value));
  entry_.dtype_name = value;
  return true;
}

bool HeaderReader::start_object(size_t) {
  if (level_ > 1) return refuse("an object");
  ++level_;
  if (level_ == 2) {
    entry_ = TensorEntry{};
    offsets_.clear();
    seen_fields_.clear();
    field_.clear();
  }
  return true;
}

bool HeaderReader::end_object() {
  --level_;
  return level_ == 0 || name_ == "__metadata__" || finish_tensor();
}

bool HeaderReader::start_array(size_t) {
  const bool list = level_ == 2 && name_ != "__metadata__" && (field_ == "shape" || field_ == "data_offsets");
  if (!list) return refuse("a list");
  ++level_;
  return true;
}

bool HeaderReader::key(string_t& name) {
  if (level_ == 1) {
    name_ = name;
    if (seen_names_.insert(name).second) return true;
    return fail(absl::StrCat("tensor ", describe_json(name), " twice in the header"));
  }
  field_ = name;
  if (!seen_fields_.insert(name).second) {
    return fail(absl::StrCat(describe_json(name_), ": ", describe_json(name), " twice"));
  }
  if (name_ == "__metadata__" || name == "dtype" || name == "shape" || name == "data_offsets") return true;
  return fail(absl::StrCat(describe_json(name_), ": got the field ", describe_json(name),
                           ", wanted dtype, shape or data_offsets"));
}

bool HeaderReader::finish_tensor() {
  const std::string quoted = describe_json(name_);
  for (const char* field : {"dtype", "shape", "data_offsets"}) {
    if (seen_fields_.count(field) == 0) return fail(absl::StrCat(quoted, ": has no ", field));
  }
  const auto known = std::find_if(kFileDTypes.begin(), kFileDTypes.end(),
                                  [&](const FileDType& dtype) { return dtype.name == entry_.dtype_name; });
  if (known == kFileDTypes.end()) {
    return fail(absl::StrCat(quoted, ": got the unknown dtype ", describe_json(entry_.dtype_name)));
  }
  const std::optional<uint64_t> bytes = tensor_bytes(entry_.shape, known->bits);
  const std::string shape = absl::StrCat("[", absl::StrJoin(entry_.shape, ", "), "]");
  if (!bytes.has_value()) {
    return fail(absl::StrCat(quoted, ": shape ", shape, " of ", entry_.dtype_name,
                             " is not a whole number of bytes below 2^64 bits"));
  }
  if (offsets_.size() != 2 || offsets_[0] > offsets_[1] || offsets_[1] > data_bytes_) {
    return fail(absl::StrCat(quoted, ": got data_offsets [", absl::StrJoin(offsets_, ", "),
                             "], wanted a begin and an end within ", data_bytes_, " bytes of data"));
  }
  if (offsets_[1] - offsets_[0] != *bytes) {
    return fail(absl::StrCat(quoted, ": got ", offsets_[1] - offsets_[0], " bytes, wanted ", *bytes, " for ",
                             shape, " of ", entry_.dtype_name));
  }
  entry_.dtype = known->dtype;
  entry_.file = file_;
  entry_.offset = data_start_ + offsets_[0];
  entry_.bytes = *bytes;
  entries.emplace(name_, std::move(entry_));
  return true;
}

/// The tensors must fill the data without a hole and without sharing a byte.
absl::Status check_coverage(const std::map<std::string, TensorEntry>& entries, uint64_t data_start,
                            uint64_t data_bytes, const std::string& file) {
  std::vector<std::pair<const std::string*, const TensorEntry*>> order;
  for (const auto& [name, entry] : entries) order.emplace_back(&name, &entry);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->offset, a.second->bytes) < std::pair(b.second->offset, b.second->bytes);
  });
  uint64_t end = data_start;
  for (const auto& [name, entry] : order) {
    if (entry->offset != end) {
      return absl::InvalidArgumentError(absl::StrCat(
          file, ": ", describe_json(*name), ": begins at byte ", entry->offset - data_start,
          " of the data, wanted ", end - data_start,
          entry->offset > end ? ", where the tensor before it ends (hole)" : " or later (overlap)"));
    }
    end += entry->bytes;
  }
  if (end == data_start + data_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(file, ": tensors end at byte ", end - data_start,
                                                 " of the data, the file holds ", data_bytes));
}

}  // namespace

absl::StatusOr<std::map<std::string, TensorEntry>> parse_safetensors_header(std::string_view json,
                                                                            uint64_t data_bytes,
                                                                            const std::string& file) {
  if (data_bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) / 2 ||
      json.size() > kMaxSafetensorsHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": got a header of ", json.size(), " bytes and ",
                                                   data_bytes, " bytes of data, wanted at most ",
                                                   kMaxSafetensorsHeaderBytes, " and 2^62"));
  }
  if (json.empty() || json.front() != '{') {
    return absl::InvalidArgumentError(absl::StrCat(file, ": the header does not begin with '{'"));
  }
  HeaderReader reader(json.size(), data_bytes, file);
  if (!nlohmann::json::sax_parse(json, &reader)) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", reader.fault));
  }
  absl::Status covered = check_coverage(reader.entries, 8 + json.size(), data_bytes, file);
  if (!covered.ok()) return covered;
  return std::move(reader.entries);
}

}  // namespace trireme
