#include "engine/plan/nearest_name.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/ascii.h"

namespace trireme {
namespace {

std::string plain(std::string_view name) {
  std::string letters;
  for (const char byte : name) {
    if (byte != '-' && byte != '_' && byte != ' ') letters += absl::ascii_tolower(byte);
  }
  return letters;
}

int distance_of(const std::string& a, const std::string& b) {
  std::vector<int> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

int edit_distance(std::string_view a, std::string_view b) { return distance_of(plain(a), plain(b)); }

std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& names,
                                       size_t count) {
  const std::string wanted = plain(name);
  std::vector<std::pair<int, size_t>> order;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string known = plain(names[i]);
    const bool within = !wanted.empty() &&
                        (known.find(wanted) != std::string::npos || wanted.find(known) != std::string::npos);
    order.emplace_back(within ? 0 : distance_of(wanted, known), i);
  }
  std::sort(order.begin(), order.end());
  std::vector<std::string> nearest;
  for (size_t i = 0; i < std::min(count, order.size()); ++i) nearest.push_back(names[order[i].second]);
  return nearest;
}

}  // namespace trireme
