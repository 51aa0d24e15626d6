#include "coordinator/relay.h"

namespace trireme {

void Relay::start() { streams_.read(); }

void Relay::on_read(bool ok) {
  bool pass_on;
  {
    std::lock_guard lock(mutex_);
    pass_on = ok && !ended_locked();
  }
  if (pass_on)
    streams_.write();
  else
    streams_.release();
}

void Relay::on_written(bool ok) {
  if (!ok) end(RelayEnd::client_gone);
  bool go_on;
  {
    std::lock_guard lock(mutex_);
    go_on = !ended_locked();
  }
  if (go_on)
    streams_.read();
  else
    streams_.release();
}

void Relay::on_upstream_done() {
  RelayEnd cause;
  {
    std::lock_guard lock(mutex_);
    done_ = true;
    cause = cause_;
  }
  streams_.finish(cause);
}

void Relay::end(RelayEnd cause) {
  {
    std::lock_guard lock(mutex_);
    if (done_ || ended_locked()) return;
    cause_ = cause;
  }
  streams_.cancel();
}

RelayEnd Relay::cause() const {
  std::lock_guard lock(mutex_);
  return cause_;
}

}  // namespace trireme
