#pragma once
// Where Prometheus reads a process: plain HTTP, GET /metrics.

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "proto/support/endpoint.h"
#include "proto/support/metrics_page.h"

namespace prometheus {
class Exposer;
}  // namespace prometheus

namespace trireme::rpc {

/// An HTTP server on a few threads of its own. A client that does not finish its request, or does not read
/// its answer, keeps one of them for at most three seconds; nothing else in the process waits for it.
class MetricsEndpoint {
 public:
  /// Fills the page of one scrape. Called on the endpoint's threads, by several at once; must not
  /// block, since the destructor waits for it.
  using FillPage = std::function<void(MetricsPage&)>;

  /// Listens when it returns; port 0 takes a free one. FAILED_PRECONDITION for an address that is not
  /// loopback without `insecure`, UNAVAILABLE when the port is in use or the address not this host's.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> start(const Address& listen, bool insecure,
                                                                FillPage fill);
  /// From now on nothing is collected. The connection of a client that hangs may last a little longer.
  ~MetricsEndpoint();
  MetricsEndpoint(const MetricsEndpoint&) = delete;
  MetricsEndpoint& operator=(const MetricsEndpoint&) = delete;

  /// With the port that was bound.
  const Address& address() const { return address_; }

 private:
  class Collector;
  MetricsEndpoint(Address address, std::shared_ptr<Collector> collector,
                  std::unique_ptr<prometheus::Exposer> exposer);

  Address address_;
  std::shared_ptr<Collector> collector_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace trireme::rpc
