#include "worker/inbox.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace trireme::worker {

namespace {

int64_t prompt_tokens(const Submission& submission) {
  int64_t tokens = 0;
  for (const Request& request : submission.samples) tokens += static_cast<int64_t>(request.prompt.size());
  return tokens;
}

/// Empty: nobody's.
const std::string& client_of(const Submission& submission) {
  static const std::string nobody;
  return submission.sink == nullptr ? nobody : submission.sink->client;
}

int64_t count_of(const WaitingByClient& counts, const std::string& client) {
  const auto found = counts.find(client);
  return found == counts.end() ? 0 : found->second;
}

std::string samples_of(int64_t requests) {
  return absl::StrCat("this one has ", requests, requests == 1 ? " sample" : " samples");
}

}  // namespace

void Commands::clear() {
  submissions.clear();
  cancels.clear();
}

absl::Status Inbox::check_room(const Submission& submission) const {
  const auto requests = static_cast<int64_t>(submission.samples.size());
  const int64_t tokens = prompt_tokens(submission);
  const int64_t requests_waiting = queued_.waiting.requests + engine_.waiting.requests;
  const int64_t tokens_waiting = queued_.waiting.prompt_tokens + engine_.waiting.prompt_tokens;
  if (requests_waiting == 0) return absl::OkStatus();
  if (requests_waiting + requests > limits_.max_requests) {
    return absl::ResourceExhaustedError(absl::StrCat("queue is full: ", requests_waiting, " requests wait, ",
                                                     samples_of(requests), ", at most ",
                                                     limits_.max_requests));
  }
  if (tokens_waiting + tokens > limits_.max_prompt_tokens) {
    return absl::ResourceExhaustedError(absl::StrCat("queue is full: ", tokens_waiting,
                                                     " prompt tokens wait, this request has ", tokens,
                                                     ", at most ", limits_.max_prompt_tokens));
  }
  return check_client(submission);
}

// Of all that wait, as many as there are free slots for do so only until the next step. Whose those are
// nobody knows yet, but a client cannot have more behind them than all clients have together.
absl::Status Inbox::check_client(const Submission& submission) const {
  const std::string& client = client_of(submission);
  const int64_t limit = limits_.max_requests_per_client;
  if (client.empty() || limit == 0) return absl::OkStatus();
  const int64_t of_client = count_of(queued_.by_client, client) + count_of(engine_.by_client, client);
  if (of_client == 0) return absl::OkStatus();
  const auto requests = static_cast<int64_t>(submission.samples.size());
  const int64_t behind_slots =
      queued_.waiting.requests + engine_.waiting.requests + requests - engine_.free_slots;
  if (std::min(of_client + requests, behind_slots) <= limit) return absl::OkStatus();
  const std::string beyond = engine_.free_slots > 0 ? absl::StrCat(" beyond the ", engine_.free_slots,
                                                                   " that the next step has room for")
                                                    : "";
  return absl::ResourceExhaustedError(absl::StrCat("queue of client '", client, "' is full: ", of_client,
                                                   " of its requests wait, ", samples_of(requests),
                                                   ", at most ", limit, beyond));
}

absl::Status Inbox::push(Submission submission) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return absl::UnavailableError("the replica is draining and takes no new requests");
    if (auto status = check_room(submission); !status.ok()) return status;
    const auto requests = static_cast<int64_t>(submission.samples.size());
    queued_.waiting.requests += requests;
    queued_.waiting.prompt_tokens += prompt_tokens(submission);
    if (const std::string& client = client_of(submission); !client.empty())
      queued_.by_client[client] += requests;
    commands_.submissions.push_back(std::move(submission));
  }
  changed_.notify_one();
  return absl::OkStatus();
}

void Inbox::cancel(RequestHandle handle) {
  {
    std::lock_guard lock(mutex_);
    commands_.cancels.push_back(handle);
  }
  changed_.notify_one();
}

void Inbox::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
}

bool Inbox::closed() const {
  std::lock_guard lock(mutex_);
  return closed_;
}

void Inbox::wake() {
  {
    std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_one();
}

void Inbox::take(Commands& commands, std::chrono::steady_clock::time_point deadline) {
  commands.clear();
  std::unique_lock lock(mutex_);
  // A busy engine looks in between steps and must not pay for a wait.
  if (deadline > std::chrono::steady_clock::now()) {
    changed_.wait_until(lock, deadline, [this] { return woken_ || !commands_.empty(); });
  }
  woken_ = false;
  std::swap(commands, commands_);
  taken_ = queued_;
}

void Inbox::set_engine_queue(EngineQueue queue) {
  std::lock_guard lock(mutex_);
  queued_.waiting.requests -= taken_.waiting.requests;
  queued_.waiting.prompt_tokens -= taken_.waiting.prompt_tokens;
  for (const auto& [client, requests] : taken_.by_client) {
    if ((queued_.by_client[client] -= requests) == 0) queued_.by_client.erase(client);
  }
  taken_ = {};
  engine_ = std::move(queue);
}

Waiting Inbox::waiting() const {
  std::lock_guard lock(mutex_);
  return {queued_.waiting.requests + engine_.waiting.requests,
          queued_.waiting.prompt_tokens + engine_.waiting.prompt_tokens};
}

}  // namespace trireme::worker
