#include "tests/testing/process_table.h"

#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace trireme::testing {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

ProcessEntry read_process(pid_t pid) {
  ProcessEntry entry;
  entry.pid = pid;
  entry.state = 'X';
  const std::string stat = read_file("/proc/" + std::to_string(pid) + "/stat");
  // The name stands in parentheses and may contain anything, closing ones included.
  const size_t open = stat.find('('), close = stat.rfind(')');
  if (open == std::string::npos || close == std::string::npos) return entry;
  entry.name = stat.substr(open + 1, close - open - 1);
  std::istringstream fields(stat.substr(close + 1));
  std::string skipped;
  double user = 0, system = 0;
  pid_t group = 0;
  fields >> entry.state >> entry.parent >> group >> entry.session;
  for (int i = 0; i < 7; ++i) fields >> skipped;  // tty_nr to cmajflt
  fields >> user >> system;
  entry.cpu_seconds = (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  return entry;
}

std::vector<ProcessEntry> list_processes() {
  std::vector<ProcessEntry> result;
  for (const auto& folder : std::filesystem::directory_iterator("/proc")) {
    const std::string name = folder.path().filename();
    if (std::isdigit(static_cast<unsigned char>(name[0])) == 0) continue;
    const ProcessEntry entry = read_process(std::stoi(name));
    if (entry.state != 'X') result.push_back(entry);
  }
  return result;
}

std::string environment_of(pid_t pid, const std::string& name) {
  const std::string all = '\0' + read_file("/proc/" + std::to_string(pid) + "/environ");
  const std::string key = '\0' + name + "=";
  const size_t start = all.find(key);
  if (start == std::string::npos) return "";
  return all.substr(start + key.size()).c_str();
}

std::vector<ProcessEntry> processes_with(const std::string& name, const std::string& value) {
  std::vector<ProcessEntry> result;
  for (const ProcessEntry& entry : list_processes()) {
    if (entry.state != 'Z' && environment_of(entry.pid, name) == value) result.push_back(entry);
  }
  return result;
}

}  // namespace trireme::testing
