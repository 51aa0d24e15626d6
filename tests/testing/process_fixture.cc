#include "tests/testing/process_fixture.h"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>

namespace trireme::testing {
namespace {

constexpr char kMarker[] = "TRIREME_TEST_MARKER";

}  // namespace

void ProcessFixture::SetUp() {
  std::string pattern = (std::filesystem::temp_directory_path() / "trireme-test.XXXXXX").string();
  ASSERT_NE(mkdtemp(pattern.data()), nullptr) << pattern;
  folder_ = pattern;
  marker_ = folder_.filename();
}

void ProcessFixture::TearDown() {
  if (HasFailure()) {
    for (const auto& child : children_) {
      std::cerr << "---- output of process " << child->pid() << "\n" << child->output() << "\n";
    }
  }
  // Last started, first stopped: a coordinator outlives the jobs that joined it.
  while (!children_.empty()) stop(*children_.back());
  expect_nothing_left();
  std::filesystem::remove_all(folder_);
}

Process& ProcessFixture::start(const std::vector<std::string>& argv,
                               std::map<std::string, std::string> environment) {
  environment.emplace(kMarker, marker_);
  // A folder each: of several mpiruns that make one session folder at the same moment, some fail.
  const std::filesystem::path own = folder_ / ("process-" + std::to_string(num_started_++));
  std::filesystem::create_directory(own);
  environment.emplace("TMPDIR", own);
  environment.emplace("OMPI_MCA_orte_tmpdir_base", own);
  environment.emplace("OMPI_MCA_btl_vader_backing_directory", own);
  environment.emplace("OMPI_ALLOW_RUN_AS_ROOT", "1");
  environment.emplace("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
  children_.push_back(std::make_unique<Process>(argv, environment));
  return *children_.back();
}

int ProcessFixture::stop(Process& process, double seconds) {
  process.signal(SIGTERM);
  const auto deadline = deadline_in(seconds);
  std::optional<int> code = process.wait(deadline);
  EXPECT_TRUE(code) << "process " << process.pid() << " still runs " << seconds << " s after SIGTERM\n"
                    << process.output();
  if (!code) {
    process.kill_session();
    code = process.wait(deadline_in(10));
  }
  std::erase_if(children_, [&](const auto& child) { return child.get() == &process; });
  return code.value_or(-1);
}

std::vector<ProcessEntry> ProcessFixture::processes(const std::string& name) const {
  std::vector<ProcessEntry> result = processes_with(kMarker, marker_);
  std::erase_if(result, [&](const ProcessEntry& entry) { return entry.name != name.substr(0, 15); });
  return result;
}

void ProcessFixture::expect_nothing_left() {
  const auto deadline = deadline_in(leftover_seconds_);
  for (const ProcessEntry& entry : processes_with(kMarker, marker_)) {
    if (wait_until_gone(entry.pid, deadline)) continue;
    ADD_FAILURE() << "process " << entry.pid << " (" << entry.name << ", state " << entry.state
                  << ") was left behind";
    kill(entry.pid, SIGKILL);
  }
  for (const auto& file : std::filesystem::recursive_directory_iterator(folder_)) {
    const std::string name = file.path().filename();
    if ((name.starts_with("vader_segment") && !shared_memory_may_stay_) || name.starts_with("ompi.")) {
      ADD_FAILURE() << file.path() << " was left behind";
    }
  }
}

}  // namespace trireme::testing
