#pragma once
// The least code with which gRPC's callback API streams tokens through a relay: what ours is measured by.

#include "tests/bench/pace.h"

namespace trireme::bench {

/// Serves Generate for ever: tokens at the pace, each a message of its own, no bookkeeping of any kind.
[[noreturn]] void run_bare_server(Pace& pace);
/// Passes Generate on to `server_port` for ever, one message after the other.
[[noreturn]] void run_bare_relay(Pace& pace, int server_port);

}  // namespace trireme::bench
