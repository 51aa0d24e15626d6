#pragma once
// A connection that can be cut or go silent: what a kill -9, a partition or a stopped process looks like.

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace trireme {

/// Listens on a free port of 127.0.0.1 and passes bytes to and from `port` there.
class TcpProxy {
 public:
  explicit TcpProxy(int port);
  ~TcpProxy();

  int port() const { return port_; }
  /// Closes every connection; new ones are accepted.
  void cut();
  /// From now on no byte passes, and nobody is told.
  void go_silent() { silent_ = true; }

 private:
  void accept_all();
  void pump(int from, int to);

  const int target_port_;
  int port_ = 0;
  int listener_ = -1;
  std::atomic<bool> silent_{false}, over_{false};
  std::mutex mutex_;
  std::vector<int> sockets_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace trireme
