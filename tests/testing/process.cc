#include "tests/testing/process.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "tests/testing/process_table.h"

namespace trireme::testing {
namespace {

int remaining_ms(SteadyClock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - SteadyClock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

int open_pidfd(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

/// A pidfd becomes readable when its process has ended.
bool wait_pidfd(int pidfd, SteadyClock::time_point deadline) {
  pollfd poll_fd{pidfd, POLLIN, 0};
  int ready;
  do {
    ready = poll(&poll_fd, 1, remaining_ms(deadline));
  } while (ready < 0 && errno == EINTR);
  return ready == 1;
}

std::vector<std::string> merged_environment(const std::map<std::string, std::string>& changes) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!changes.contains(text.substr(0, text.find('=')))) result.push_back(text);
  }
  for (const auto& [name, value] : changes) result.push_back(name + "=" + value);
  return result;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (std::string& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

SteadyClock::time_point deadline_in(double seconds) {
  static const double factor = [] {
    const char* text = std::getenv("TRIREME_TEST_TIME_FACTOR");
    return text == nullptr ? 1.0 : std::max(std::atof(text), 1.0);
  }();
  return SteadyClock::now() + std::chrono::milliseconds(static_cast<int64_t>(seconds * factor * 1000));
}

int free_port() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  int port = 0;
  if (fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&address), length) == 0 &&
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length) == 0) {
    port = ntohs(address.sin_port);
  }
  close(fd);
  return port;
}

Process::Process(const std::vector<std::string>& argv,
                 const std::map<std::string, std::string>& environment) {
  std::vector<std::string> arguments = argv, variables = merged_environment(environment);
  const std::vector<char*> argument_pointers = pointers(arguments), variable_pointers = pointers(variables);
  int out[2], err[2], started[2];
  if (pipe2(out, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0 || pipe2(started, O_CLOEXEC) != 0)
    std::abort();
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) {  // only async-signal-safe calls from here to exec
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(127);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    const int null = open("/dev/null", O_RDONLY);
    if (dup2(null, 0) < 0 || dup2(out[1], 1) < 0 || dup2(err[1], 2) < 0) _exit(127);
    execvpe(argument_pointers[0], argument_pointers.data(), variable_pointers.data());
    _exit(127);
  }
  for (const int fd : {out[1], err[1], started[1]}) close(fd);
  char never_written;
  while (read(started[0], &never_written, 1) < 0 && errno == EINTR) {
  }  // ends when exec, or the child, has closed the other end
  close(started[0]);
  pidfd_ = open_pidfd(pid_);
  stop_fd_ = eventfd(0, EFD_CLOEXEC);
  collector_ = std::thread([this, o = out[0], e = err[0]] { collect(o, e); });
}

Process::~Process() {
  kill_session();
  wait(deadline_in(10));
  eventfd_write(stop_fd_, 1);
  collector_.join();
  close(stop_fd_);
  close(pidfd_);
}

std::optional<int> Process::wait(SteadyClock::time_point deadline) {
  if (exit_code_ || !wait_pidfd(pidfd_, deadline)) return exit_code_;
  int status = 0;
  if (waitpid(pid_, &status, 0) == pid_) {
    exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    // What it wrote last may still be in the pipes; they stay open for as long as a grandchild holds them.
    std::unique_lock lock(mutex_);
    grown_.wait_until(lock, deadline_in(1), [this] { return ended_; });
  }
  return exit_code_;
}

void Process::signal(int number) const {
  // The pidfd, not the pid: it can never mean another process.
  syscall(SYS_pidfd_send_signal, pidfd_, number, nullptr, 0);
}

void Process::kill_session() const {
  if (!exit_code_) signal(SIGKILL);
  for (const ProcessEntry& entry : list_processes()) {
    if (entry.session == pid_ && entry.pid != pid_) kill(entry.pid, SIGKILL);
  }
}

std::string Process::output() const {
  const std::lock_guard lock(mutex_);
  return output_;
}

std::string Process::standard_output() const {
  const std::lock_guard lock(mutex_);
  return standard_output_;
}

bool Process::wait_for_output(const std::string& text, SteadyClock::time_point deadline) const {
  std::unique_lock lock(mutex_);
  const auto found = [&] { return output_.find(text) != std::string::npos; };
  grown_.wait_until(lock, deadline, [&] { return ended_ || found(); });
  return found();
}

void Process::collect(int out, int err) {
  pollfd streams[3] = {{out, POLLIN, 0}, {err, POLLIN, 0}, {stop_fd_, POLLIN, 0}};
  while ((streams[0].fd >= 0 || streams[1].fd >= 0) && streams[2].revents == 0) {
    if (poll(streams, 3, -1) < 0 && errno != EINTR) break;
    for (int i = 0; i < 2; ++i) {
      if (streams[i].fd < 0 || streams[i].revents == 0) continue;
      char buffer[4096];
      const ssize_t count = read(streams[i].fd, buffer, sizeof(buffer));
      if (count <= 0) {
        close(streams[i].fd);
        streams[i].fd = -1;
        continue;
      }
      const std::lock_guard lock(mutex_);
      output_.append(buffer, static_cast<size_t>(count));
      if (i == 0) standard_output_.append(buffer, static_cast<size_t>(count));
      grown_.notify_all();
    }
  }
  for (int i = 0; i < 2; ++i) {
    if (streams[i].fd >= 0) close(streams[i].fd);
  }
  const std::lock_guard lock(mutex_);
  ended_ = true;
  grown_.notify_all();
}

bool wait_until_gone(pid_t pid, SteadyClock::time_point deadline) {
  const int pidfd = open_pidfd(pid);
  if (pidfd < 0) return true;
  const bool gone = wait_pidfd(pidfd, deadline);
  close(pidfd);
  return gone;
}

}  // namespace trireme::testing
