#include "launch/client/collective_report.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace trireme::client {
namespace {

std::string describe_ranks(const CollectiveBenchReport& report) {
  const Placement& placement = report.placement;
  return absl::StrFormat("%s on %s, %d rank%s on %d host%s with %d core%s for them%s, f32, seed %u",
                         report.group, report.backend, report.ranks, report.ranks == 1 ? "" : "s",
                         placement.num_hosts, placement.num_hosts == 1 ? "" : "s", placement.num_cores,
                         placement.num_cores == 1 ? "" : "s",
                         placement.oversubscribed ? ": OVERSUBSCRIBED, ranks take turns" : "", report.seed);
}

std::string describe_fit(const CollectiveReport& operation) {
  if (!operation.fit.ok()) return absl::StrCat("# no ", std::string(operation.fit.status().message()), "\n");
  const CollectiveFit& fit = *operation.fit;
  return absl::StrFormat(
      "# fit: %.2f us + bytes / (%.3f GB/s), %d to %d bytes; off by %.1f %% (root mean square), at most "
      "%.1f %%\n",
      fit.alpha_us, fit.beta_gb_s, operation.sizes.front().bytes, operation.sizes.back().bytes,
      100 * fit.rms_residual, 100 * fit.max_residual);
}

nlohmann::json fit_json(const absl::StatusOr<CollectiveFit>& fit) {
  if (!fit.ok()) return nullptr;
  return {{"alpha_us", fit->alpha_us},
          {"beta_gb_s", fit->beta_gb_s},
          {"rms_residual", fit->rms_residual},
          {"max_residual", fit->max_residual}};
}

nlohmann::json size_json(const CollectiveFigures& size) {
  return {{"bytes", size.bytes},
          {"algorithm", size.algorithm},
          {"iterations", size.iterations},
          {"time_us", size.time_us},
          {"min_time_us", size.samples_us.front()},
          {"max_time_us", size.samples_us.back()},
          {"samples_us", size.samples_us},
          {"algbw_gb_s", size.algbw_gb_s},
          {"busbw_gb_s", size.busbw_gb_s},
          {"num_wrong", size.wrong},
          {"same_on_all_ranks", size.same_on_all_ranks}};
}

}  // namespace

const char kCollectiveJsonHelp[] =
    "The JSON, one object:\n"
    "  schema               \"trireme.collectives.1\"\n"
    "  group, backend       \"mpi\", \"nccl\", \"single\"; \"cpu\", \"cuda\"\n"
    "  num_ranks, num_hosts, num_cores   cores: those that the ranks may run on\n"
    "  oversubscribed       true: fewer cores than ranks somewhere, so times are those of taking turns\n"
    "  dtype, seed          of the messages, \"f32\"; of the verified inputs\n"
    "  operations[]         op; busbw_factor; latency_us (smallest message); fit; sizes[]\n"
    "    fit                null, or time_us = alpha_us + bytes / (beta_gb_s * 1000), least squares of the\n"
    "                       relative errors, whose root mean square and largest magnitude are rms_residual\n"
    "                       and max_residual\n"
    "    sizes[]            bytes; algorithm (of all_reduce, as the group chose it); iterations per sample; "
    "samples_us (of the slowest rank, ascending);\n"
    "                       time_us, min_time_us, max_time_us: their median and range; algbw_gb_s = bytes /\n"
    "                       time; busbw_gb_s = algbw_gb_s * busbw_factor; num_wrong; same_on_all_ranks\n"
    "Bytes: what is summed or broadcast; of a gather, what arrives. Columns as in nccl-tests\n"
    "(doc/PERFORMANCE.md). Exit code 1 where an element is wrong.";

std::string to_text(const CollectiveBenchReport& report) {
  std::string text = absl::StrCat("# ", describe_ranks(report), "\n");
  for (const CollectiveReport& operation : report.operations) {
    absl::StrAppendFormat(&text, "# %s: busbw = algbw * %.3f; latency %.2f us\n",
                          collective_name(operation.op), operation.busbw_factor, operation.latency_us);
    absl::StrAppendFormat(&text, "# %10s %6s %11s %11s %11s %10s %10s %s\n", "bytes", "calls", "time us",
                          "min", "max", "algbw GB/s", "busbw GB/s", "#wrong  algorithm");
    for (const CollectiveFigures& size : operation.sizes) {
      absl::StrAppendFormat(&text, "%12d %6d %11.2f %11.2f %11.2f %10.3f %10.3f %7d  %s%s\n", size.bytes,
                            size.iterations, size.time_us, size.samples_us.front(), size.samples_us.back(),
                            size.algbw_gb_s, size.busbw_gb_s, size.wrong, size.algorithm,
                            size.same_on_all_ranks ? "" : "  # not the same bits on all ranks");
    }
    text += describe_fit(operation);
  }
  return text;
}

nlohmann::json to_json(const CollectiveBenchReport& report) {
  nlohmann::json json{{"schema", "trireme.collectives.1"},
                      {"group", report.group},
                      {"backend", report.backend},
                      {"num_ranks", report.ranks},
                      {"num_hosts", report.placement.num_hosts},
                      {"num_cores", report.placement.num_cores},
                      {"oversubscribed", report.placement.oversubscribed},
                      {"dtype", "f32"},
                      {"seed", report.seed},
                      {"operations", nlohmann::json::array()}};
  for (const CollectiveReport& operation : report.operations) {
    nlohmann::json sizes = nlohmann::json::array();
    for (const CollectiveFigures& size : operation.sizes) sizes.push_back(size_json(size));
    json["operations"].push_back({{"op", collective_name(operation.op)},
                                  {"busbw_factor", operation.busbw_factor},
                                  {"latency_us", operation.latency_us},
                                  {"fit", fit_json(operation.fit)},
                                  {"sizes", std::move(sizes)}});
  }
  return json;
}

}  // namespace trireme::client
