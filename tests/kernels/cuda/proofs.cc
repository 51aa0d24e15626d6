#include "tests/kernels/cuda/proofs.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cctype>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/kernels/cuda/device_tensor.h"
#include "tests/simt/grid.h"

namespace trireme::testing {
namespace {

using Operation = std::function<std::vector<float>()>;

constexpr uint64_t kSeed = 5;
constexpr char kReachesAll[] = "an operation has to come to all of them";

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::filesystem::path path_of(const std::string& source) {
  return std::filesystem::path(TRIREME_SOURCE_DIR) / "kernels/cuda" / source;
}

/// Whether the line says that its barrier is there against lost updates: threads that are run one after the
/// other never lose one.
bool is_against_lost_updates(const std::string& source, int line_number) {
  std::ifstream file(path_of(source));
  std::string line;
  for (int i = line_number; i > 0; --i) std::getline(file, line);
  EXPECT_TRUE(file) << source << ":" << line_number;
  return line.find("against lost updates") != std::string::npos;
}

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file) << path;
  return std::string(std::istreambuf_iterator<char>(file), {});
}

bool is_in_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

int64_t num_calls(const std::string& source, const Calls& calls) {
  const std::string text = text_of(path_of(source));
  int64_t count = 0;
  for (const char* call : calls) {
    for (size_t at = text.find(call); at != std::string::npos; at = text.find(call, at + 1))
      count += at == 0 || !is_in_name(text[at - 1]);
  }
  return count;
}

/// Whether a run with `options` shows anything that one without a fault does not.
bool is_noticed(const Operation& op, const std::vector<float>& wanted, const simt::Options& options) {
  simt::set_options(options);
  const bool same = same_bits(op(), wanted);
  // Both forget what they are asked for.
  const bool is_damaged = Surroundings::take_damage(), has_failed = simt::take_failure();
  return !same || is_damaged || has_failed;
}

bool is_noticed_in_some_order(const Operation& op, const std::vector<float>& wanted, simt::Options options) {
  options.seed = kSeed;
  for (const simt::Order order : simt::kOrders) {
    options.order = order;
    if (is_noticed(op, wanted, options)) return true;
  }
  return false;
}

void run_behind_walls(const Operation& op, const simt::MaskPlace& without_mask) {
  simt::Options options;
  options.num_threads = 1;  // a process that forked has no others
  options.without_mask = without_mask;
  simt::set_options(options);
  const Surroundings wall(Surroundings::Kind::wall);
  op();
}

/// AddressSanitizer tells of the signal, and exits.
bool is_end_at_wall(int status) { return ::testing::KilledBySignal(SIGSEGV)(status) || WIFEXITED(status); }

/// Ends with what other tests begin with.
struct DefaultOptions {
  DefaultOptions() { simt::set_options({}); }
  ~DefaultOptions() { simt::set_options({}); }
};

}  // namespace

void expect_no_source_forgotten(const Calls& calls, const std::string& proof) {
  namespace fs = std::filesystem;
  std::string tests;
  for (const auto& entry : fs::directory_iterator(fs::path(TRIREME_SOURCE_DIR) / "tests/kernels/cuda")) {
    if (entry.path().extension() == ".cc") tests += text_of(entry.path());
  }
  for (const auto& entry : fs::directory_iterator(path_of(""))) {
    const std::string name = entry.path().filename(), extension = entry.path().extension();
    if ((extension != ".cu" && extension != ".cuh") || name == "mask.cuh" || num_calls(name, calls) == 0)
      continue;
    EXPECT_NE(tests.find(proof + "(\"" + name + "\""), std::string::npos) << name << " needs a proof";
  }
}

void expect_every_meeting_needed(const std::string& source, const Operation& op) {
  SCOPED_TRACE(source);
  const DefaultOptions defaults;
  const std::vector<float> wanted = op();
  ASSERT_FALSE(is_noticed_in_some_order(op, wanted, {})) << "with all barriers";
  int64_t num_reached = 0;
  for (const std::string& place : simt::meeting_places()) {
    const size_t colon = place.rfind(':');
    if (!place.substr(0, colon).ends_with("kernels/cuda/" + source)) continue;
    ++num_reached;
    if (is_against_lost_updates(source, std::stoi(place.substr(colon + 1)))) continue;
    simt::Options options;
    options.without = place;
    EXPECT_TRUE(is_noticed_in_some_order(op, wanted, options)) << place << " can be left out";
  }
  EXPECT_EQ(num_reached, num_calls(source, kMeetingCalls)) << kReachesAll;
}

void expect_every_mask_needed(const std::string& source, const Operation& op) {
  SCOPED_TRACE(source);
  const DefaultOptions defaults;
  run_behind_walls(op, {});
  std::vector<simt::MaskPlace> needed_behind_walls;
  {
    const Surroundings room(Surroundings::Kind::room);
    simt::Options options;
    options.watches_masks = true;
    simt::set_options(options);
    simt::forget_masks();
    const std::vector<float> wanted = op();
    ASSERT_FALSE(is_noticed_in_some_order(op, wanted, options)) << "with all masks";
    int64_t num_reached = 0;
    for (const simt::MaskPlace& place : simt::mask_places()) {
      if (!place.file.ends_with("kernels/cuda/" + source)) continue;
      ++num_reached;
      options.without_mask = place;
      if (!is_noticed_in_some_order(op, wanted, options)) needed_behind_walls.push_back(place);
    }
    EXPECT_EQ(num_reached, num_calls(source, kMaskCalls)) << kReachesAll;
  }
  for (const simt::MaskPlace& place : needed_behind_walls)
    EXPECT_EXIT(run_behind_walls(op, place), is_end_at_wall, "")
        << "the mask in line " << place.line << ", column " << place.column << " can be left out";
}

}  // namespace trireme::testing
