#include "launch/client/status_watch.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "launch/client/commands.h"
#include "launch/client/error_report.h"
#include "launch/client/interrupt.h"
#include "launch/client/status_view.h"
#include "trireme/v1/cluster.grpc.pb.h"

namespace trireme::client {
namespace {

/// Says when to stop, to whoever waits for the next look.
class Stop {
 public:
  void set() {
    {
      std::lock_guard lock(mutex_);
      set_ = true;
    }
    changed_.notify_all();
  }
  /// True when it was set before the time was over.
  bool wait(double seconds) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return set_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool set_ = false;
};

/// Lines on standard output: below each other, or each time over the last ones.
class Screen {
 public:
  bool in_place() const { return in_place_; }

  void show(const std::vector<std::string>& lines) {
    std::string text;
    if (in_place_ && num_shown_ > 0) text = "\x1b[" + std::to_string(num_shown_) + "F";
    winsize size{};
    const bool known = in_place_ && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
    const int columns = known && size.ws_col > 0 ? size.ws_col : 80;
    // One row less than there are: the cursor stands below the last line.
    const size_t rows = known && size.ws_row > 1 ? size.ws_row - 1u : lines.size();
    const size_t num_lines = in_place_ ? std::min(lines.size(), rows) : lines.size();
    for (size_t i = 0; i < num_lines; ++i) {
      text += in_place_ ? clip(lines[i], columns) + "\x1b[K\n" : lines[i] + "\n";
    }
    if (in_place_) text += "\x1b[J";
    num_shown_ = num_lines;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  }

 private:
  const bool in_place_ = ::isatty(STDOUT_FILENO) != 0;
  size_t num_shown_ = 0;
};

}  // namespace

int watch_status(const ConnectionOptions& options, double period_s) {
  Stop stop;
  const InterruptWatch watch([&stop] { stop.set(); });
  const auto stub = v1::Cluster::NewStub(connect(options));
  Screen screen;
  StatusView view;
  for (bool first = true;; first = false) {
    grpc::ClientContext context;
    set_deadline(context, options.timeout_s);
    v1::GetClusterResponse cluster;
    const grpc::Status status = stub->GetCluster(&context, {}, &cluster);
    if (watch.interrupted()) return kExitOk;
    if (first && status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
      std::fprintf(stderr, "trireme: %s is no coordinator: --watch needs one\n", options.address.c_str());
      return kExitInvalid;
    }
    if (first && !status.ok()) return report_error(status, options.address);
    const auto now = StatusView::Clock::now();
    if (!status.ok())
      screen.show({options.address + ": " + describe(status)});
    else
      screen.show(screen.in_place() ? view.frame(options.address, cluster, now)
                                    : view.lines(options.address, cluster, now));
    if (std::ferror(stdout) != 0) return kExitFailed;  // nobody reads
    if (stop.wait(period_s)) return kExitOk;
  }
}

}  // namespace trireme::client
