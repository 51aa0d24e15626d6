#include "tests/layering/arrows.h"

#include <algorithm>
#include <vector>

namespace trireme::layering {
namespace {

using Prefixes = std::vector<std::string>;

bool starts_with_any(const std::string& text, const Prefixes& prefixes) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const auto& p) { return text.starts_with(p); });
}

struct Rule {
  std::string folder;  // the longest match counts
  Prefixes may_include;
};

/// Our own headers. Files directly in engine/ (the facade, config, request) are ruled by "engine/".
const std::vector<Rule>& rules() {
  // Headers of plain data that the context of a forward pass carries down from the runner.
  static const Prefixes kStep = {"engine/runner/workspace.h", "engine/runner/step_phases.h",
                                 "engine/runner/step_progress.h", "engine/runner/collective_scope.h"};
  static const Prefixes kValues = {"engine/config.h", "engine/request.h", "engine/json_document.h",
                                   "engine/base/", "kernels/check.h"};
  const auto with = [](Prefixes a, const Prefixes& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  };
  static const std::vector<Rule> kRules = {
      {"proto/", {"proto/", "engine/base/", "kernels/check.h"}},
      {"proto/support/job_layout", {"proto/", "engine/base/", "engine/plan/"}},
      {"kernels/", {"kernels/"}},
      {"coordinator/", {"coordinator/", "proto/", "engine/base/", "engine/plan/"}},
      {"worker/", {"worker/", "proto/", "engine/", "kernels/"}},
      {"launch/client/", {"launch/client/", "proto/", "engine/json_document.h", "kernels/check.h"}},
      {"launch/client/bench", {"launch/client/", "proto/", "engine/", "kernels/"}},
      {"launch/client/collective_", {"launch/client/", "engine/parallel/", "kernels/"}},
      {"launch/client/rank_placement", {"launch/client/", "engine/parallel/"}},
      {"launch/client/doctor", {"launch/client/", "proto/", "engine/", "kernels/"}},
      {"launch/client/engine_bench", {"launch/client/", "engine/", "kernels/"}},
      {"launch/client/plan", {"launch/client/", "engine/"}},
      {"launch/client/scaling_tables", {"launch/client/", "engine/plan/"}},
      {"engine/", {"engine/", "kernels/"}},
      {"engine/base/", {"engine/base/", "kernels/check.h"}},
      {"engine/plan/", {"engine/plan/", "engine/base/", "kernels/check.h"}},
      {"engine/tokenizer/", with({"engine/tokenizer/"}, kValues)},
      {"engine/scheduler/", with({"engine/scheduler/", "kernels/sampling_row.h"}, kValues)},
      {"engine/parallel/", {"engine/parallel/", "kernels/"}},
      {"engine/layers/", with({"engine/layers/", "engine/parallel/", "engine/plan/", "kernels/"}, kStep)},
      {"engine/models/", with({"engine/models/", "engine/layers/", "engine/config.h", "kernels/"}, kStep)},
      {"engine/weights/", with({"engine/weights/", "engine/layers/parameter.h", "kernels/"}, kValues)},
      {"engine/runner/",
       {"engine/runner/", "engine/models/", "engine/layers/", "engine/parallel/", "engine/plan/",
        "engine/scheduler/step_plan.h", "engine/config.h", "engine/request.h", "kernels/"}},
  };
  return kRules;
}

/// Libraries that only some files may know.
struct Fence {
  std::string what;
  Prefixes headers;
  Prefixes files;
};

const std::vector<Fence>& fences() {
  static const std::vector<Fence> kFences = {
      {"MPI", {"mpi.h"}, {"engine/parallel/mpi_group.cc"}},
      {"CUDA", {"cuda", "cublas", "cooperative_groups"}, {"kernels/cuda/", "engine/parallel/nccl_"}},
      {"NCCL", {"nccl"}, {"engine/parallel/nccl_"}},
      {"gRPC", {"grpc", "trireme/v1/"}, {"proto/", "coordinator/", "worker/", "launch/client/"}},
      {"oneDNN", {"oneapi/", "dnnl"}, {"kernels/cpu/", "tests/bench/", "launch/client/bench"}},
      {"Highway", {"hwy/"}, {"kernels/cpu/"}},
      {"Prometheus", {"prometheus/"}, {"proto/support/metrics_"}},
  };
  return kFences;
}

const Rule* rule_of(const std::string& file) {
  const Rule* best = nullptr;
  for (const Rule& rule : rules()) {
    if (file.starts_with(rule.folder) && (best == nullptr || rule.folder.size() > best->folder.size()))
      best = &rule;
  }
  return best;
}

bool is_ours(const std::string& header) {
  return starts_with_any(header,
                         {"proto/", "kernels/", "engine/", "coordinator/", "worker/", "launch/", "tests/"});
}

/// The word after the '#' of a preprocessor line; empty for any other line.
std::string directive(const std::string& line) {
  const size_t hash = line.find_first_not_of(" \t");
  if (hash == std::string::npos || line[hash] != '#') return "";
  const size_t begin = line.find_first_not_of(" \t", hash + 1);
  if (begin == std::string::npos) return "";
  return line.substr(begin, line.find_first_not_of("abcdefghijklmnopqrstuvwxyz", begin) - begin);
}

}  // namespace

std::string include_violation(const std::string& file, const std::string& header) {
  const Rule* rule = rule_of(file);
  if (rule != nullptr && is_ours(header) && !starts_with_any(header, rule->may_include)) {
    return file + " includes " + header + ", which " + rule->folder + " may not know";
  }
  for (const Fence& fence : fences()) {
    if (starts_with_any(header, fence.headers) && !starts_with_any(file, fence.files)) {
      return file + " includes " + header + ": " + fence.what + " belongs behind its own files";
    }
  }
  return "";
}

std::string included_header(const std::string& line) {
  if (directive(line) != "include") return "";
  const size_t open = line.find_first_of("<\"");
  const size_t close = open == std::string::npos ? open : line.find_first_of(">\"", open + 1);
  return close == std::string::npos ? "" : line.substr(open + 1, close - open - 1);
}

std::string line_violation(const std::string& file, const std::string& line) {
  const std::string word = directive(line);
  const bool conditional = word == "if" || word == "ifdef" || word == "ifndef" || word == "elif";
  if (conditional && starts_with_any(file, {"engine/", "worker/", "coordinator/"})) {
    return file + " compiles conditionally: " + line;
  }
  return "";
}

}  // namespace trireme::layering
