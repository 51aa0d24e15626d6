#include "tests/e2e/virtual_hosts.h"

#include <sched.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace trireme::testing {

namespace fs = std::filesystem;

namespace {

std::string why_none = "VirtualHostsFixture::leave_network() was not called";

std::string namespace_of(pid_t pid) {
  std::error_code error;
  return fs::read_symlink("/proc/" + std::to_string(pid) + "/ns/net", error).string();
}

}  // namespace

std::string VirtualHostsFixture::leave_network() {
  why_none = unshare(CLONE_NEWNET) == 0 ? "" : std::string("no network namespace: ") + std::strerror(errno);
  return why_none;
}

void VirtualHostsFixture::SetUp() {
  ServiceFixture::SetUp();
  if (!why_none.empty()) GTEST_SKIP() << why_none;
  // Whether this kernel has what hosts are made of, and this user may; what goes wrong later is a failure.
  const std::string problem = run_script(
      "ip link set lo up; ip link add probe0 type veth peer name probe1; ip link add switch0 type bridge; "
      "ip link del probe0; unshare --net --uts true");
  if (!problem.empty()) GTEST_SKIP() << problem;
  const std::string wrong = run_script("ip addr add 10.77.0.254/24 dev switch0; ip link set switch0 up");
  ASSERT_EQ(wrong, "");
}

void VirtualHostsFixture::TearDown() {
  if (why_none.empty()) {
    // A service that stops wants to reach all its hosts.
    for (const auto& [name, host] : hosts_) set_link(name, true);
  }
  ServiceFixture::TearDown();
  // A process of its own can run after the fixture's are gone; its folder is gone, too.
  if (why_none.empty()) Process({"ip", "link", "del", "switch0"}, {}).wait(deadline_in(10));
}

std::string VirtualHostsFixture::run_script(const std::string& script) {
  Process& process = start({"sh", "-ec", script});
  const auto code = process.wait(deadline_in(20));
  return code == 0 ? "" : "'" + script + "' failed: " + process.output();
}

void VirtualHostsFixture::add_hosts(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    Process& holder = start({"unshare", "--net", "--uts", "sh", "-ec",
                             "hostname " + name + "; ip link set lo up; echo ready; exec sleep infinity"});
    if (!holder.wait_for_output("ready", deadline_in(20))) throw std::runtime_error(holder.output());
    const Host host{"10.77.0." + std::to_string(hosts_.size() + 1), holder.pid()};
    const std::string pid = std::to_string(host.pid), cable = "to-" + name;
    const std::string problem =
        run_script("ip link add " + cable + " type veth peer name eth0 netns " + pid + "; ip link set " +
                   cable + " master switch0 up; nsenter --target " + pid + " --net sh -ec 'ip addr add " +
                   host.address + "/24 dev eth0; ip link set eth0 up'");
    if (!problem.empty()) throw std::runtime_error(problem);
    hosts_[name] = host;
  }
}

std::vector<std::string> VirtualHostsFixture::on(const std::string& host,
                                                 std::vector<std::string> command) const {
  command.insert(command.begin(),
                 {"nsenter", "--target", std::to_string(hosts_.at(host).pid), "--net", "--uts", "--"});
  return command;
}

std::string VirtualHostsFixture::rsh_agent() {
  const fs::path path = folder() / "agent.sh";
  std::ofstream file(path);
  file << "#!/bin/sh\n# HOST COMMAND...\nhost=$1; shift\ncase $host in\n";
  for (const auto& [name, host] : hosts_) {
    file << name << "|" << host.address << ") pid=" << host.pid << " ;;\n";
  }
  file
      << "*) echo \"no host $host\" >&2; exit 255 ;;\nesac\n"
      // What a sanitizer needs is no part of what is tested.
      << "exec nsenter --target $pid --net --uts -- env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=\"$HOME\" "
         "ASAN_OPTIONS=\"$ASAN_OPTIONS\" LSAN_OPTIONS=\"$LSAN_OPTIONS\" UBSAN_OPTIONS=\"$UBSAN_OPTIONS\" "
         "TRIREME_TEST_MARKER=\"$TRIREME_TEST_MARKER\" sh -c \"$*\"\n";
  file.close();
  fs::permissions(path, fs::perms::owner_all);
  return path;
}

void VirtualHostsFixture::set_link(const std::string& host, bool up) {
  EXPECT_EQ(run_script("ip link set to-" + host + (up ? " up" : " down")), "");
}

int64_t VirtualHostsFixture::bytes_through(const std::string& host) const {
  std::ifstream file("/proc/net/dev");
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    if (name != "to-" + host + ":") continue;
    int64_t columns[9] = {};  // bytes received, 7 more of what was received, bytes sent
    for (int64_t& column : columns) words >> column;
    return columns[0] + columns[8];
  }
  ADD_FAILURE() << "no cable to " << host;
  return 0;
}

std::vector<ProcessEntry> VirtualHostsFixture::workers_on(const std::string& host) const {
  const std::string there = namespace_of(hosts_.at(host).pid);
  std::vector<ProcessEntry> result = processes("trireme-worker");
  std::erase_if(result, [&](const ProcessEntry& entry) { return namespace_of(entry.pid) != there; });
  return result;
}

}  // namespace trireme::testing
