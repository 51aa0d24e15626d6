#pragma once
// Several hosts on one machine: network namespaces with cables between them.

#include <map>
#include <string>
#include <vector>

#include "tests/e2e/service_fixture.h"

namespace trireme::testing {

/// A test whose hosts are network namespaces: each has its own name, its own loopback and one cable (a veth
/// pair) to a switch (a bridge), into which the test itself is plugged as well. All of it lies within a
/// network of this process alone, so names and addresses collide with nobody's, and it vanishes with the
/// processes in it, however they end. A test is skipped, with the reason, where namespaces are forbidden.
class VirtualHostsFixture : public ServiceFixture {
 public:
  /// Gives this process a network of its own. Call it before a second thread exists; not repeatable. "" or
  /// why it cannot be.
  static std::string leave_network();

 protected:
  static constexpr char kNetwork[] = "10.77.0.0/24";

  void SetUp() override;
  void TearDown() override;

  /// Starts hosts; the n-th that was ever added has the address 10.77.0.n. Throws when it cannot be done.
  void add_hosts(const std::vector<std::string>& names);
  std::string address_of(const std::string& host) const { return hosts_.at(host).address; }
  /// The command line that runs `command` on a host.
  std::vector<std::string> on(const std::string& host, std::vector<std::string> command) const;
  /// A program that mpirun can use in place of ssh: like it, it passes no environment on.
  std::string rsh_agent();
  /// Pulls a host's cable, or plugs it in again.
  void set_link(const std::string& host, bool up);
  /// What went over a host's cable so far, both directions.
  int64_t bytes_through(const std::string& host) const;
  /// Workers that run on a host.
  std::vector<ProcessEntry> workers_on(const std::string& host) const;

 private:
  struct Host {
    std::string address;
    pid_t pid = 0;  // of a process that holds its namespaces
  };
  std::string run_script(const std::string& script);

  std::map<std::string, Host> hosts_;
};

}  // namespace trireme::testing
