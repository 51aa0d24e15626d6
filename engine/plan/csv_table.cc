#include "engine/plan/csv_table.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace trireme {
namespace {

constexpr uintmax_t kMaxTableBytes = uintmax_t{4} << 20;
constexpr size_t kMaxNameBytes = 100;

absl::Status fault(const std::string& where, int line, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(where, ":", line, ": ", what));
}

std::string stripped(std::string cell) {
  absl::StripAsciiWhitespace(&cell);
  return cell;
}

/// Splits text into records, one call each.
class CsvReader {
 public:
  CsvReader(std::string_view text, const std::string& where) : text_(text), where_(where) {
    if (text_.starts_with("\xef\xbb\xbf")) text_.remove_prefix(3);
  }

  bool at_end() const { return position_ >= text_.size(); }
  int line() const { return line_; }

  /// The next record; no cells for an empty line or a remark.
  absl::StatusOr<std::vector<std::string>> next() {
    std::vector<std::string> cells;
    if (text_[position_] == '#') {
      while (!at_end() && !take_line_end()) ++position_;
      return cells;
    }
    if (take_line_end()) return cells;
    for (;;) {
      absl::StatusOr<std::string> cell = next_cell();
      if (!cell.ok()) return cell.status();
      cells.push_back(*std::move(cell));
      if (at_end() || take_line_end()) return cells;
      ++position_;  // the comma
    }
  }

 private:
  bool take_line_end() {
    if (text_.substr(position_).starts_with("\r\n")) ++position_;
    if (text_[position_] != '\n') return false;
    ++position_;
    ++line_;
    return true;
  }
  bool at_cell_end() const {
    return at_end() || text_[position_] == ',' || text_[position_] == '\n' ||
           text_.substr(position_).starts_with("\r\n");
  }

  absl::StatusOr<std::string> next_cell() {
    if (!at_end() && text_[position_] == '"') return quoted_cell();
    const size_t begin = position_;
    while (!at_cell_end()) {
      const char byte = text_[position_];
      if (byte == '"') return fault(where_, line_, "a quote in the middle of a field; quote the whole field");
      if (static_cast<unsigned char>(byte) < 0x20 && byte != '\t') {
        return fault(where_, line_, "a control character in a field");
      }
      ++position_;
    }
    return stripped(std::string(text_.substr(begin, position_ - begin)));
  }

  absl::StatusOr<std::string> quoted_cell() {
    const int first_line = line_;
    std::string cell;
    for (++position_; !at_end(); ++position_) {
      const char byte = text_[position_];
      if (byte == '\n') ++line_;
      if (byte != '"') {
        cell += byte;
        continue;
      }
      ++position_;
      if (!at_end() && text_[position_] == '"') {
        cell += '"';
        continue;
      }
      if (!at_cell_end()) return fault(where_, line_, "text after a closing quote");
      return stripped(std::move(cell));
    }
    return fault(where_, first_line, "a quote that is opened here and never closed");
  }

  std::string_view text_;
  const std::string& where_;
  size_t position_ = 0;
  int line_ = 1;
};

}  // namespace

absl::StatusOr<std::string> read_table_file(const std::string& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  if (!std::filesystem::is_regular_file(status)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error || size > kMaxTableBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": got ", size, " bytes, wanted at most ", kMaxTableBytes));
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!(text << file.rdbuf()) && size > 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  }
  return text.str();
}

absl::StatusOr<CsvTable> CsvTable::parse(std::string_view text, std::string where,
                                         const std::vector<std::string>& required) {
  CsvTable table;
  table.where_ = std::move(where);
  CsvReader reader(text, table.where_);
  while (!reader.at_end()) {
    Row row;
    row.line = reader.line();
    absl::StatusOr<std::vector<std::string>> cells = reader.next();
    if (!cells.ok()) return cells.status();
    if (cells->empty()) continue;
    row.cells = *std::move(cells);
    if (table.columns_.empty()) {
      if (absl::Status header = table.read_header(row, required); !header.ok()) return header;
    } else if (row.cells.size() != table.columns_.size()) {
      return fault(
          table.where_, row.line,
          absl::StrCat("got ", row.cells.size(), " fields, wanted the header's ", table.columns_.size()));
    } else {
      table.rows_.push_back(std::move(row));
    }
  }
  if (table.rows_.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(table.where_, ": no row below the header"));
  }
  return table;
}

absl::Status CsvTable::read_header(const Row& header, const std::vector<std::string>& required) {
  for (const std::string& column : header.cells) {
    if (column.empty() || std::find(columns_.begin(), columns_.end(), column) != columns_.end()) {
      return fault(where_, header.line,
                   absl::StrCat("header: got '", column, "', wanted names that differ and are not empty"));
    }
    columns_.push_back(column);
  }
  for (const std::string& column : required) {
    if (std::find(columns_.begin(), columns_.end(), column) == columns_.end()) {
      return fault(where_, header.line,
                   absl::StrCat("header: column '", column, "' is missing; wanted at least ",
                                absl::StrJoin(required, ", ")));
    }
  }
  return absl::OkStatus();
}

const std::string& CsvTable::text(size_t row, std::string_view column) const {
  static const auto* empty = new std::string;
  const auto found = std::find(columns_.begin(), columns_.end(), column);
  if (found == columns_.end()) return *empty;
  return rows_[row].cells[static_cast<size_t>(found - columns_.begin())];
}

std::string CsvRow::name(std::string_view column) {
  const std::string& cell = table_.text(row_, column);
  if (cell.empty() || cell.size() > kMaxNameBytes) {
    fail(column, absl::StrCat("'", cell.substr(0, kMaxNameBytes), "'"), "a name of 1 to 100 bytes");
  }
  return cell;
}

double CsvRow::number(std::string_view column, double min, double max, std::optional<double> fallback) {
  const std::string& cell = table_.text(row_, column);
  if (cell.empty() && fallback) return *fallback;
  double value = 0;
  if (!absl::SimpleAtod(cell, &value) || !std::isfinite(value) || value < min || value > max) {
    fail(column, absl::StrCat("'", cell, "'"),
         absl::StrCat("a number from ", min, " to ", max,
                      fallback ? ", or nothing where it is not known" : ""));
    return fallback.value_or(min);
  }
  return value;
}

int CsvRow::integer(std::string_view column, int min, int max, std::optional<int> fallback) {
  const std::string& cell = table_.text(row_, column);
  if (cell.empty() && fallback) return *fallback;
  int value = 0;
  if (!absl::SimpleAtoi(cell, &value) || value < min || value > max) {
    fail(column, absl::StrCat("'", cell, "'"), absl::StrCat("a whole number from ", min, " to ", max));
    return fallback.value_or(min);
  }
  return value;
}

bool CsvRow::boolean(std::string_view column, bool fallback) {
  const std::string& cell = table_.text(row_, column);
  if (cell.empty()) return fallback;
  if (cell != "true" && cell != "false") fail(column, absl::StrCat("'", cell, "'"), "true or false");
  return cell == "true";
}

void CsvRow::fail(std::string_view column, std::string_view got, std::string_view wanted) {
  if (!status_.ok()) return;
  status_ = fault(table_.where(), table_.line(row_),
                  absl::StrCat("column ", std::string(column), ": got ", std::string(got), ", wanted ",
                               std::string(wanted)));
}

}  // namespace trireme
