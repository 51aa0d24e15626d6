#pragma once

#include "absl/status/status.h"

namespace trireme::worker {

/// How the process ends; the numbers are those of sysexits.h.
enum class ExitCode : int {
  kOk = 0,
  kUsage = 64,        // a flag
  kBadData = 65,      // a file of the model
  kNoInput = 66,      // no such model
  kUnavailable = 69,  // coordinator, peer or port
  kInternal = 70,     // a bug, a broken device, the watchdog
  kOsError = 71,      // memory
  kConfig = 78,       // what was asked for does not fit together
};

/// The code for an error of starting up.
ExitCode exit_code(const absl::Status& status);

}  // namespace trireme::worker
