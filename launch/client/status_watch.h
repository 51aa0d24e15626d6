#pragma once

#include "launch/client/connection.h"

namespace trireme::client {

/// Shows a coordinator's status every `period_s` seconds until Ctrl-C: redrawn in place on a terminal, else
/// appended as plain lines. The exit code: 0 after Ctrl-C, else what the first look failed with; later
/// failures are shown, and the next look may succeed.
int watch_status(const ConnectionOptions& options, double period_s);

}  // namespace trireme::client
