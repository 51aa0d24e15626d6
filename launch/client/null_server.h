#pragma once
// A server that does nothing: what a load costs by itself, and what bare gRPC can stream.

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace trireme::client {

/// An Inference service on a free port of this host. Generate streams the prompt's message, then max_tokens
/// messages of one token each, the next when gRPC has taken the one before, and usage on the last; it looks
/// at nothing else of a request.
class NullServer {
 public:
  static absl::StatusOr<std::unique_ptr<NullServer>> start();
  /// Cancels what runs.
  ~NullServer();
  std::string address() const;

 private:
  struct Impl;
  explicit NullServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace trireme::client
