#include "proto/support/metrics_endpoint.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <future>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <prometheus/collectable.h>
#include <prometheus/exposer.h>

#include "absl/strings/str_cat.h"

namespace trireme::rpc {
namespace {

// Prometheus itself asks with one connection; the others are for people, and for clients that hang.
constexpr char kNumThreads[] = "4";
constexpr char kTimeoutMs[] = "3000";
constexpr std::chrono::milliseconds kStopPatience{500};

/// While alive, lets an HTTP server that is being stopped find that out: civetweb looks each two seconds, or
/// when someone connects.
class Waker {
 public:
  explicit Waker(const Address& address) : thread_([this, address] { run(address); }) {}
  ~Waker() {
    over_ = true;
    thread_.join();
  }

 private:
  void run(const Address& address) const {
    addrinfo hints = {};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    const std::string port = std::to_string(address.port);
    if (::getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found) != 0) return;
    while (!over_) {
      const int socket = ::socket(found->ai_family, found->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      if (socket >= 0) {
        ::connect(socket, found->ai_addr, found->ai_addrlen);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        ::close(socket);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    ::freeaddrinfo(found);
  }

  std::atomic<bool> over_{false};
  std::thread thread_;
};

}  // namespace

class MetricsEndpoint::Collector : public prometheus::Collectable {
 public:
  explicit Collector(FillPage fill) : fill_(std::move(fill)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    MetricsPage page;
    std::shared_lock lock(mutex_);
    if (fill_) fill_(page);
    return page.families();
  }
  /// What is read is not touched any more.
  void close() {
    std::unique_lock lock(mutex_);
    fill_ = nullptr;
  }

 private:
  mutable std::shared_mutex mutex_;
  FillPage fill_;
};

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::start(const Address& listen, bool insecure,
                                                                        FillPage fill) {
  if (absl::Status status = check_open_address(listen, insecure); !status.ok()) return status;
  Address address = listen;
  auto collector = std::make_shared<Collector>(std::move(fill));
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(std::vector<std::string>{
        "listening_ports", listen.text(), "num_threads", kNumThreads, "request_timeout_ms", kTimeoutMs});
    exposer->RegisterCollectable(collector);
    const std::vector<int> ports = exposer->GetListeningPorts();
    if (!ports.empty()) {
      address.port = ports.front();
      return std::unique_ptr<MetricsEndpoint>(
          new MetricsEndpoint(address, std::move(collector), std::move(exposer)));
    }
  } catch (const std::exception&) {
    // The library does not say why.
  }
  return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", listen.text(),
                                             ": the port is in use, or the address is not one of this host"));
}

MetricsEndpoint::MetricsEndpoint(Address address, std::shared_ptr<Collector> collector,
                                 std::unique_ptr<prometheus::Exposer> exposer)
    : address_(std::move(address)), collector_(std::move(collector)), exposer_(std::move(exposer)) {}

MetricsEndpoint::~MetricsEndpoint() {
  collector_->close();
  std::promise<void> stopped;
  std::future<void> stopping = stopped.get_future();
  // Stopping takes as long as the server waits for a client that hangs; that is nobody else's time.
  std::thread([exposer = std::move(exposer_), collector = collector_,
               promise = std::move(stopped)]() mutable {
    exposer.reset();
    promise.set_value();
  }).detach();
  const Waker waker(address_);
  stopping.wait_for(kStopPatience);
}

}  // namespace trireme::rpc
