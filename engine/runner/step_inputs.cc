#include "engine/runner/step_inputs.h"

#include <algorithm>
#include <cstring>

namespace trireme {
namespace {

constexpr int64_t kAlignWords = 4;
constexpr int64_t kSamplingWords = sizeof(SamplingRow) / sizeof(int32_t);
static_assert(sizeof(SamplingRow) % sizeof(int32_t) == 0);

}  // namespace

StepCounts StepCounts::of(const StepPlan& plan) {
  StepCounts counts;
  counts.tokens = plan.num_tokens();
  counts.seqs = plan.num_seqs();
  counts.sampled = plan.num_sampled();
  counts.prompt_logprobs = plan.num_prompt_logprobs();
  counts.blocks_per_seq = *std::max_element(plan.num_blocks.begin(), plan.num_blocks.end());
  counts.biases = static_cast<int64_t>(plan.bias_ids.size());
  counts.banned = static_cast<int64_t>(plan.banned_ids.size());
  return counts;
}

StepCounts StepCounts::largest(const StepPlanLimits& limits) {
  StepCounts counts;
  counts.tokens = counts.prompt_logprobs = limits.max_num_tokens;
  counts.seqs = counts.sampled = limits.max_num_seqs;
  counts.blocks_per_seq = (limits.max_context_len + limits.block_size - 1) / limits.block_size;
  counts.biases = counts.sampled * kMaxBiases;
  counts.banned = counts.sampled * kMaxBanned;
  return counts;
}

std::array<int64_t, StepInputs::kNumRegions + 1> StepInputs::layout(const StepCounts& counts) {
  std::array<int64_t, kNumRegions> words;
  words.fill(counts.sampled);
  words[kSampling] = counts.sampled * kSamplingWords;
  words[kTokens] = words[kPositions] = words[kSlots] = counts.tokens;
  words[kCuQueryLens] = counts.seqs + 1;
  words[kContextLens] = counts.seqs;
  words[kLogprobRows] = words[kLogprobTargets] = words[kLogprobTops] = counts.prompt_logprobs;
  words[kBlockTables] = counts.seqs * counts.blocks_per_seq;
  words[kBiasIds] = words[kBiases] = counts.biases;
  words[kBannedIds] = counts.banned;
  std::array<int64_t, kNumRegions + 1> begin{};
  for (size_t region = 0; region < words.size(); ++region)
    begin[region + 1] = begin[region] + (words[region] + kAlignWords - 1) / kAlignWords * kAlignWords;
  return begin;
}

int64_t StepInputs::num_words(const StepCounts& counts) { return layout(counts).back(); }

StepInputs::StepInputs(const StepCounts& counts, void* device, int64_t max_query_len, int64_t max_context_len)
    : counts_(counts), begin_(layout(counts)), device_(static_cast<int32_t*>(device)) {
  const auto at = [&](Region region) { return device_ + begin_[region]; };
  const auto vector = [&](Region region, int64_t count) { return Tensor(at(region), DType::i32, 1, count); };
  tensors_.ids = vector(kTokens, counts.tokens);
  tensors_.batch.positions = vector(kPositions, counts.tokens);
  tensors_.batch.slots = vector(kSlots, counts.tokens);
  tensors_.batch.cu_query_lens = vector(kCuQueryLens, counts.seqs + 1);
  tensors_.batch.context_lens = vector(kContextLens, counts.seqs);
  tensors_.batch.block_tables = Tensor(at(kBlockTables), DType::i32, counts.seqs, counts.blocks_per_seq);
  tensors_.batch.num_tokens = counts.tokens;
  tensors_.batch.num_seqs = counts.seqs;
  tensors_.batch.max_query_len = max_query_len;
  tensors_.batch.max_context_len = max_context_len;
  tensors_.sampled_rows = vector(kSampledRows, counts.sampled);
  tensors_.kept_slots = vector(kKeptSlots, counts.sampled);
  tensors_.sampling = reinterpret_cast<const SamplingRow*>(at(kSampling));
  tensors_.lists.first_bias = at(kFirstBias);
  tensors_.lists.first_banned = at(kFirstBanned);
  tensors_.lists.bias_ids = at(kBiasIds);
  tensors_.lists.biases = reinterpret_cast<const float*>(at(kBiases));
  tensors_.lists.banned_ids = at(kBannedIds);
  tensors_.lists.slots = at(kCountedSlots);
  tensors_.num_top = vector(kNumTop, counts.sampled);
  tensors_.logprob_rows = vector(kLogprobRows, counts.prompt_logprobs);
  tensors_.logprob_targets = vector(kLogprobTargets, counts.prompt_logprobs);
  tensors_.logprob_tops = vector(kLogprobTops, counts.prompt_logprobs);
}

void StepInputs::write(const StepPlan& plan, int32_t block_size, int32_t* host) const {
  const int64_t num_missing = counts_.seqs - plan.num_seqs();
  CHECK_GE(num_missing, 0);
  CHECK_EQ(counts_.tokens - plan.num_tokens(), num_missing);
  if (num_missing > 0) CHECK_EQ(counts_.sampled - plan.num_sampled(), num_missing);
  write_sequences(plan, block_size, host);
  write_sampling(plan, host);
  std::copy(plan.logprob_tokens.begin(), plan.logprob_tokens.end(), host + begin_[kLogprobRows]);
  std::copy(plan.logprob_targets.begin(), plan.logprob_targets.end(), host + begin_[kLogprobTargets]);
  std::copy(plan.logprob_tops.begin(), plan.logprob_tops.end(), host + begin_[kLogprobTops]);
}

void StepInputs::write_sequences(const StepPlan& plan, int32_t block_size, int32_t* host) const {
  int32_t *tokens = host + begin_[kTokens], *positions = host + begin_[kPositions];
  int32_t *slots = host + begin_[kSlots], *cu_query_lens = host + begin_[kCuQueryLens];
  int32_t *context_lens = host + begin_[kContextLens], *row = host + begin_[kSampledRows];
  int32_t* table = host + begin_[kBlockTables];
  const int32_t* blocks = plan.block_tables.data();
  cu_query_lens[0] = 0;
  int32_t token = 0;
  for (int32_t s = 0; s < counts_.seqs; ++s) {
    const bool missing = s >= plan.num_seqs();
    const int32_t query_len = missing ? 1 : plan.query_lens[s], num_blocks = missing ? 0 : plan.num_blocks[s];
    const int32_t slot = missing ? -1 : plan.slots[s];
    context_lens[s] = missing ? 1 : plan.context_lens[s];
    for (int32_t i = 0; i < query_len; ++i, ++token) {
      const int32_t id = missing ? 0 : plan.token_ids[token];
      const int32_t position = context_lens[s] - query_len + i;
      tokens[token] = id == kLastToken ? -1 - slot : id;
      positions[token] = position;
      slots[token] = slot < 0 ? -1 : blocks[position / block_size] * block_size + position % block_size;
    }
    cu_query_lens[s + 1] = token;
    std::copy(blocks, blocks + num_blocks, table);
    std::fill(table + num_blocks, table + counts_.blocks_per_seq, 0);
    table += counts_.blocks_per_seq;
    blocks += num_blocks;
    if (missing || plan.sample[s] != 0) *row++ = token - 1;
  }
}

void StepInputs::write_sampling(const StepPlan& plan, int32_t* host) const {
  int32_t *kept = host + begin_[kKeptSlots], *counted = host + begin_[kCountedSlots];
  int32_t *first_bias = host + begin_[kFirstBias], *first_banned = host + begin_[kFirstBanned];
  int32_t* num_top = host + begin_[kNumTop];
  char* rows = reinterpret_cast<char*>(host + begin_[kSampling]);
  int32_t bias = 0, banned = 0;
  for (int32_t s = 0, i = 0; i < counts_.sampled; ++s) {
    const bool missing = s >= plan.num_seqs();
    if (!missing && plan.sample[s] == 0) continue;
    SamplingRow row = missing ? SamplingRow() : plan.sampling[i];
    kept[i] = missing ? -1 : plan.slots[s];
    if (kept[i] < 0) {  // nobody has counted its tokens
      row.repetition_penalty = 1;
      row.presence_penalty = row.frequency_penalty = 0;
    }
    counted[i] = row.has_penalties() ? kept[i] : -1;
    first_bias[i] = bias;
    first_banned[i] = banned;
    num_top[i] = row.num_top_logprobs;
    std::memcpy(rows + sizeof(SamplingRow) * static_cast<size_t>(i), &row, sizeof(SamplingRow));
    bias += row.num_biases;
    banned += row.num_banned;
    ++i;
  }
  std::copy(plan.bias_ids.begin(), plan.bias_ids.end(), host + begin_[kBiasIds]);
  std::copy(plan.biases.begin(), plan.biases.end(), reinterpret_cast<float*>(host + begin_[kBiases]));
  std::copy(plan.banned_ids.begin(), plan.banned_ids.end(), host + begin_[kBannedIds]);
}

void StepInputs::copy_to_device(const StepPlan& plan, const int32_t* host, Backend& backend) const {
  const auto copy = [&](int64_t begin, int64_t num_words) {
    if (num_words > 0)
      backend.copy_to_device(device_ + begin, host + begin, static_cast<size_t>(num_words) * sizeof(int32_t));
  };
  const int64_t num_biases = static_cast<int64_t>(plan.bias_ids.size());
  const int64_t num_banned = static_cast<int64_t>(plan.banned_ids.size());
  if (num_biases == counts_.biases && num_banned == counts_.banned) return copy(0, begin_[kNumRegions]);
  copy(0, begin_[kBiasIds]);
  copy(begin_[kBiasIds], num_biases);
  copy(begin_[kBiases], num_biases);
  copy(begin_[kBannedIds], num_banned);
}

}  // namespace trireme
