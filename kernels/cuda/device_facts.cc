#include "kernels/cuda/device_facts.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace trireme::cuda {
namespace {

using Build = std::vector<BuildArchitecture>;

std::string version_text(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

std::string number_text(const BuildArchitecture& entry) {
  const std::string suffix = entry.suffix == 0 ? "" : std::string(1, entry.suffix);
  return absl::StrCat(entry.number, suffix);
}

/// "sm_80, sm_90a and PTX of compute_90".
std::string build_text(const Build& build) {
  std::vector<std::string> codes, ptx;
  for (const BuildArchitecture& entry : build) {
    if (entry.machine_code) codes.push_back(absl::StrCat("sm_", number_text(entry)));
    if (entry.ptx) ptx.push_back(absl::StrCat("compute_", number_text(entry)));
  }
  std::string text = codes.empty() ? "no machine code" : absl::StrJoin(codes, ", ");
  return absl::StrCat(text,
                      ptx.empty() ? " and no PTX" : absl::StrCat(" and PTX of ", absl::StrJoin(ptx, ", ")));
}

bool runs_machine_code(const BuildArchitecture& entry, int capability) {
  if (!entry.machine_code) return false;
  if (entry.suffix == 'a') return capability == entry.number;
  return capability / 10 == entry.number / 10 && capability >= entry.number;
}

bool translates_ptx(const BuildArchitecture& entry, int capability) {
  if (!entry.ptx) return false;
  if (entry.suffix == 'a') return capability == entry.number;
  if (entry.suffix == 'f') return capability / 10 == entry.number / 10 && capability >= entry.number;
  return capability >= entry.number;
}

std::string device_text(const DeviceFacts& facts) {
  return absl::StrCat("GPU ", facts.ordinal, facts.name.empty() ? "" : absl::StrCat(" (", facts.name, ")"));
}

std::string gibibytes(int64_t bytes) {
  return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / (1 << 30));
}

absl::Status judge_driver(const DeviceFacts& facts) {
  const std::string runtime = version_text(facts.runtime_version);
  if (facts.driver_version == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no NVIDIA driver was found (libcuda.so.1); this build needs one that knows CUDA ", runtime));
  }
  // Within a major version an older driver runs what a newer toolkit compiled.
  if (facts.opened == OpenResult::driver_too_old ||
      facts.driver_version / 1000 < facts.runtime_version / 1000) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the NVIDIA driver is too old: it knows CUDA ", version_text(facts.driver_version),
        ", this build uses CUDA ", runtime, "; install a newer driver, or build with an older CUDA Toolkit"));
  }
  return absl::OkStatus();
}

/// A driver that is there and cannot even count its devices: none is visible then, which is not why.
absl::Status judge_start(const DeviceFacts& facts) {
  if (facts.opened == OpenResult::not_ready) {
    return absl::UnavailableError(
        absl::StrCat("the NVIDIA driver is not ready: ", facts.error,
                     "; on machines with NVSwitch the nvidia-fabricmanager service has to run"));
  }
  const bool told = facts.opened == OpenResult::open || facts.opened == OpenResult::no_device;
  if (told || facts.num_devices > 0) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("the NVIDIA driver does not start: ", facts.error));
}

absl::Status judge_presence(const DeviceFacts& facts) {
  const std::string seen = facts.visible_devices.empty()
                               ? ""
                               : absl::StrCat(" (CUDA_VISIBLE_DEVICES is ", facts.visible_devices, ")");
  if (facts.num_devices == 0 || facts.opened == OpenResult::no_device)
    return absl::FailedPreconditionError(absl::StrCat("no NVIDIA GPU is visible", seen));
  if (facts.ordinal < 0 || facts.ordinal >= facts.num_devices) {
    return absl::FailedPreconditionError(absl::StrCat(
        "GPU ", facts.ordinal, ": wanted 0 to ", facts.num_devices - 1, ", the GPUs that are visible", seen,
        "; a rank takes the GPU of its number on its host unless --device names one"));
  }
  return absl::OkStatus();
}

absl::Status judge_opening(const DeviceFacts& facts) {
  const std::string device = device_text(facts);
  if (facts.prohibited)
    return absl::FailedPreconditionError(absl::StrCat(
        device, ": its compute mode forbids computing (nvidia-smi --compute-mode=DEFAULT allows it)"));
  switch (facts.opened) {
    case OpenResult::busy:
      return absl::UnavailableError(
          absl::StrCat(device, " is busy: ", facts.error,
                       facts.exclusive ? "; its compute mode is exclusive, and another process has it" : ""));
    case OpenResult::broken:
      return absl::InternalError(
          absl::StrCat(device, " is broken: ", facts.error, "; it has to be reset or taken out of service"));
    case OpenResult::failed:
      return absl::InternalError(absl::StrCat(device, " cannot be opened: ", facts.error));
    default:
      return absl::OkStatus();
  }
}

absl::Status judge_architecture(const DeviceFacts& facts, const Build& build,
                                std::vector<std::string>& notes) {
  const int capability = 10 * facts.major + facts.minor;
  const std::string device =
      absl::StrCat(device_text(facts), " has compute capability ", facts.major, ".", facts.minor);
  if (facts.major < kLeastMajor)
    return absl::FailedPreconditionError(
        absl::StrCat(device, ", the kernels need ", kLeastMajor, ".0 or newer"));
  const auto any = [&](auto fits) {
    return std::any_of(build.begin(), build.end(),
                       [&](const BuildArchitecture& e) { return fits(e, capability); });
  };
  if (any(runs_machine_code)) return absl::OkStatus();
  const std::string rebuild = absl::StrCat("build with -DCMAKE_CUDA_ARCHITECTURES=", capability);
  const std::string has = absl::StrCat(device, ", this build has ", build_text(build));
  if (!any(translates_ptx)) return absl::FailedPreconditionError(absl::StrCat(has, ": ", rebuild));
  if (facts.driver_version < facts.runtime_version) {
    return absl::FailedPreconditionError(
        absl::StrCat(has, ", and the driver, of CUDA ", version_text(facts.driver_version),
                     ", cannot translate PTX of CUDA ", version_text(facts.runtime_version), ": ", rebuild));
  }
  notes.push_back(absl::StrCat(
      has, ": the driver translates the PTX when it first meets it; for the device's own code ", rebuild));
  return absl::OkStatus();
}

void note_state(const DeviceFacts& facts, std::vector<std::string>& notes) {
  const std::string device = device_text(facts);
  if (facts.uncorrected_ecc_errors > 0) {
    notes.push_back(absl::StrCat(device, ": ", facts.uncorrected_ecc_errors,
                                 " uncorrected memory errors since its driver was loaded"));
  }
  // A context of ours takes a few hundred MiB.
  if (facts.total_bytes > 0 && facts.free_bytes < facts.total_bytes / 10 * 9) {
    notes.push_back(absl::StrCat(device, ": ", gibibytes(facts.free_bytes), " of ",
                                 gibibytes(facts.total_bytes), " are free, others use the rest"));
  }
}

absl::StatusOr<BuildArchitecture> parse_architecture(absl::string_view text) {
  BuildArchitecture entry;
  absl::string_view rest = text;
  const bool real = absl::ConsumeSuffix(&rest, "-real"),
             only_ptx = !real && absl::ConsumeSuffix(&rest, "-virtual");
  entry.machine_code = !only_ptx;
  entry.ptx = !real;
  if (!rest.empty() && (rest.back() == 'a' || rest.back() == 'f')) {
    entry.suffix = rest.back();
    rest.remove_suffix(1);
  }
  if (!absl::SimpleAtoi(rest, &entry.number) || entry.number < 10 || entry.number > 999) {
    return absl::InvalidArgumentError(
        absl::StrCat("CUDA architecture: got '", text, "', wanted e.g. 80, 90a-real or 90-virtual"));
  }
  return entry;
}

}  // namespace

absl::StatusOr<Build> parse_architectures(const std::string& list) {
  Build build;
  for (absl::string_view text : absl::StrSplit(list, absl::ByAnyChar(";,"))) {
    auto entry = parse_architecture(text);
    if (!entry.ok()) return entry.status();
    build.push_back(*entry);
  }
  return build;
}

absl::StatusOr<std::vector<std::string>> judge_device(const DeviceFacts& facts, const Build& build) {
  std::vector<std::string> notes;
  for (auto judge : {judge_driver, judge_start, judge_presence, judge_opening}) {
    if (absl::Status status = judge(facts); !status.ok()) return status;
  }
  if (absl::Status status = judge_architecture(facts, build, notes); !status.ok()) return status;
  note_state(facts, notes);
  return notes;
}

std::string describe_device(const DeviceFacts& facts) {
  return absl::StrCat(facts.name, ", compute capability ", facts.major, ".", facts.minor, ", ",
                      facts.num_multiprocessors, " multiprocessors, ", gibibytes(facts.total_bytes),
                      ", CUDA ", version_text(facts.runtime_version), " on a driver of CUDA ",
                      version_text(facts.driver_version));
}

}  // namespace trireme::cuda
