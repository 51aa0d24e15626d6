#pragma once
// Tables of figures as text: comma-separated values with a header, every cell checked, faults named with line
// and column.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace trireme {

/// Text of a regular file of at most 4 MiB. NOT_FOUND or INVALID_ARGUMENT naming it.
absl::StatusOr<std::string> read_table_file(const std::string& path);

/// RFC 4180: fields in double quotes may hold commas, line ends and doubled quotes. The first line names the
/// columns, in any order; columns nobody asks for are ignored. Lines that are empty or begin with '#' are
/// skipped.
class CsvTable {
 public:
  /// INVALID_ARGUMENT as "where:line: ...": an unended quote, a row of another width, a name twice in the
  /// header, a name of `required` that is missing, a control character, no row at all.
  static absl::StatusOr<CsvTable> parse(std::string_view text, std::string where,
                                        const std::vector<std::string>& required);

  size_t num_rows() const { return rows_.size(); }
  int line(size_t row) const { return rows_[row].line; }
  const std::string& where() const { return where_; }
  /// The cell without spaces around it; empty where the table has no such column.
  const std::string& text(size_t row, std::string_view column) const;

 private:
  struct Row {
    int line = 0;
    std::vector<std::string> cells;
  };
  CsvTable() = default;
  absl::Status read_header(const Row& header, const std::vector<std::string>& required);

  std::string where_;
  std::vector<std::string> columns_;
  std::vector<Row> rows_;
};

/// Takes the cells of one row. The first fault is kept, named as "where:line: column NAME: got ..., wanted
/// ..."; after it every call gives the fallback.
class CsvRow {
 public:
  /// `table` must outlive this.
  CsvRow(const CsvTable& table, size_t row) : table_(table), row_(row) {}

  std::string name(std::string_view column);  // not empty, at most 100 bytes
  std::string text(std::string_view column) const { return table_.text(row_, column); }
  /// Finite and in [min, max]. An empty cell gives the fallback, and without one it is a fault.
  double number(std::string_view column, double min, double max, std::optional<double> fallback);
  int integer(std::string_view column, int min, int max, std::optional<int> fallback);
  bool boolean(std::string_view column, bool fallback);  // true or false
  void fail(std::string_view column, std::string_view got, std::string_view wanted);
  const absl::Status& status() const { return status_; }

 private:
  const CsvTable& table_;
  size_t row_;
  absl::Status status_;
};

}  // namespace trireme
