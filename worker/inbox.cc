#include "worker/inbox.h"

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

}  // namespace

void Commands::clear() {
  submissions.clear();
  cancels.clear();
}

absl::Status Inbox::push(Submission submission) {
  {
    std::lock_guard lock(mutex_);
    if (closed_) return absl::UnavailableError("the replica is draining and takes no new requests");
    const auto requests = static_cast<int64_t>(submission.samples.size());
    const int64_t tokens = prompt_tokens(submission);
    const int64_t requests_waiting = queued_.requests + engine_.requests;
    const int64_t tokens_waiting = queued_.prompt_tokens + engine_.prompt_tokens;
    if (requests_waiting > 0 && requests_waiting + requests > limits_.max_requests) {
      return absl::ResourceExhaustedError(
          absl::StrCat("queue is full: ", requests_waiting, " requests wait, this one has ", requests,
                       requests == 1 ? " sample" : " samples", ", at most ", limits_.max_requests));
    }
    if (requests_waiting > 0 && tokens_waiting + tokens > limits_.max_prompt_tokens) {
      return absl::ResourceExhaustedError(absl::StrCat("queue is full: ", tokens_waiting,
                                                       " prompt tokens wait, this request has ", tokens,
                                                       ", at most ", limits_.max_prompt_tokens));
    }
    queued_.requests += requests;
    queued_.prompt_tokens += tokens;
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

void Inbox::set_engine_waiting(Waiting waiting) {
  std::lock_guard lock(mutex_);
  queued_.requests -= taken_.requests;
  queued_.prompt_tokens -= taken_.prompt_tokens;
  taken_ = {};
  engine_ = waiting;
}

Waiting Inbox::waiting() const {
  std::lock_guard lock(mutex_);
  return {queued_.requests + engine_.requests, queued_.prompt_tokens + engine_.prompt_tokens};
}

}  // namespace trireme::worker
