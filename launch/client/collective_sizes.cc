// The sizes and names on the command line of the collective benchmark.

#include <algorithm>
#include <array>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "launch/client/collective_bench.h"

namespace trireme::client {
namespace {

constexpr int64_t kLeast = 4, kMost = int64_t{1} << 30;
constexpr size_t kMostSizes = 64;

absl::Status wrong(const std::string& got, const char* wanted) {
  return absl::InvalidArgumentError(absl::StrCat("--sizes: got '", got, "', wanted ", wanted));
}

absl::StatusOr<int64_t> parse_size(const std::string& text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const std::string unit = text.substr(digits);
  int64_t number = 0;
  int shift = -1;
  if (unit.empty() || unit == "B") shift = 0;
  if (unit == "KiB") shift = 10;
  if (unit == "MiB") shift = 20;
  if (unit == "GiB") shift = 30;
  if (!absl::SimpleAtoi(text.substr(0, digits), &number) || shift < 0)
    return wrong(text, "a number of bytes, e.g. 512, 4KiB, 64MiB");
  if (number > (kMost >> shift) || (number << shift) < kLeast) return wrong(text, "4 bytes to 1GiB");
  if ((number << shift) % 4 != 0) return wrong(text, "a multiple of the 4 bytes of an f32");
  return number << shift;
}

absl::Status parse_range(const std::string& text, std::vector<int64_t>& sizes) {
  const std::vector<std::string> parts = absl::StrSplit(text, ':');
  if (parts.size() != 1 && parts.size() != 3)
    return wrong(text, "SIZE or FROM:TO:xFACTOR, e.g. 4KiB:64MiB:x2");
  auto from = parse_size(parts[0]);
  if (!from.ok()) return from.status();
  if (parts.size() == 1) {
    sizes.push_back(*from);
    return absl::OkStatus();
  }
  auto to = parse_size(parts[1]);
  if (!to.ok()) return to.status();
  int factor = 0;
  if (!parts[2].starts_with("x") || !absl::SimpleAtoi(parts[2].substr(1), &factor) || factor < 2 ||
      factor > 1024) {
    return wrong(parts[2], "a factor of x2 to x1024");
  }
  if (*to < *from) return wrong(text, "a range that ends at or above its beginning");
  for (int64_t size = *from; size <= *to; size *= factor) sizes.push_back(size);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> parse_sizes(const std::string& text) {
  std::vector<int64_t> sizes;
  for (const std::string& range : std::vector<std::string>(absl::StrSplit(text, ','))) {
    if (absl::Status parsed = parse_range(range, sizes); !parsed.ok()) return parsed;
    if (sizes.size() > 16 * kMostSizes) break;
  }
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  if (sizes.size() > kMostSizes)
    return absl::InvalidArgumentError(
        absl::StrCat("--sizes: got ", sizes.size(), " sizes, wanted at most ", kMostSizes));
  return sizes;
}

std::string_view collective_name(CollectiveOp op) {
  constexpr std::array<std::string_view, 3> kNames = {"all_reduce", "gather", "broadcast"};
  return kNames[static_cast<size_t>(op)];
}

std::optional<CollectiveOp> parse_collective(std::string_view name) {
  for (const CollectiveOp op : {CollectiveOp::all_reduce, CollectiveOp::gather, CollectiveOp::broadcast}) {
    if (name == collective_name(op)) return op;
  }
  return std::nullopt;
}

double busbw_factor(CollectiveOp op, int num_ranks) {
  const double n = num_ranks;
  if (op == CollectiveOp::all_reduce) return 2 * (n - 1) / n;
  return op == CollectiveOp::gather ? (n - 1) / n : 1;
}

}  // namespace trireme::client
