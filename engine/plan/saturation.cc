#include "engine/plan/saturation.h"

#include <algorithm>
#include <deque>

#include "kernels/check.h"

namespace trireme {
namespace {

/// Sequences whose prompts ended in the same step end together.
struct Cohort {
  int64_t last_step = 0;
  int sequences = 0;
};

class Simulation {
 public:
  Simulation(const StepModel& model, const SaturatingLoad& load)
      : model_(model), load_(load), waiting_(load.num_requests) {}

  SaturatedRate run() {
    int64_t done = 0;
    while (done < load_.num_requests) {
      const StepLoad step = next_step();
      add(model_.cost(step));
      ++rate_.steps;
      done += finish_step(step);
    }
    rate_.output_tokens_per_s = static_cast<double>(load_.num_requests) * load_.output_tokens / rate_.seconds;
    return rate_;
  }

 private:
  StepLoad next_step() {
    StepLoad step;
    step.decode_seqs = decoding_;
    step.decode_context = context_;
    int room = std::max(load_.max_step_tokens - decoding_, 1);  // prompts always move on
    prompts_ended_ = 0;
    while (room > 0 && (begun_ > 0 || (waiting_ > 0 && running_ < load_.max_running))) {
      if (begun_ == 0) {
        --waiting_;
        ++running_;
      }
      const int chunk = std::min(room, load_.prompt_tokens - begun_);
      step.prefill_tokens += chunk;
      step.prefill_attended += chunk * (begun_ + (chunk + 1) / 2.0);
      begun_ += chunk;
      room -= chunk;
      if (begun_ < load_.prompt_tokens) break;
      begun_ = 0;
      ++prompts_ended_;
    }
    step.sampled_rows = decoding_ + prompts_ended_;
    return step;
  }

  /// Every decoding sequence is a token longer; returns how many have all their tokens.
  int finish_step(const StepLoad& step) {
    context_ += step.decode_seqs;
    if (prompts_ended_ > 0) {
      cohorts_.push_back({rate_.steps + load_.output_tokens - 1, prompts_ended_});
      decoding_ += prompts_ended_;
      context_ += prompts_ended_ * (load_.prompt_tokens + 1.0);
    }
    int ended = 0;
    while (!cohorts_.empty() && cohorts_.front().last_step <= rate_.steps) {
      ended += cohorts_.front().sequences;
      cohorts_.pop_front();
    }
    decoding_ -= ended;
    running_ -= ended;
    context_ -= ended * (static_cast<double>(load_.prompt_tokens) + load_.output_tokens);
    return ended;
  }

  void add(const StepCost& cost) {
    rate_.seconds += cost.total();
    for (double StepCost::*part :
         {&StepCost::products, &StepCost::head, &StepCost::cache, &StepCost::attention,
          &StepCost::elementwise, &StepCost::all_reduce, &StepCost::overhead, &StepCost::skew}) {
      rate_.spent.*part += cost.*part;
    }
  }

  const StepModel& model_;
  const SaturatingLoad& load_;
  int waiting_ = 0, running_ = 0, decoding_ = 0;
  int begun_ = 0;  // tokens of the prompt that is half computed; 0: none is
  int prompts_ended_ = 0;
  double context_ = 0;  // tokens that the decoding sequences hold together
  std::deque<Cohort> cohorts_;
  SaturatedRate rate_;
};

}  // namespace

SaturatedRate saturate(const StepModel& model, const SaturatingLoad& load) {
  for (int size :
       {load.prompt_tokens, load.output_tokens, load.num_requests, load.max_running, load.max_step_tokens}) {
    CHECK_GE(size, 1);
  }
  return Simulation(model, load).run();
}

}  // namespace trireme
