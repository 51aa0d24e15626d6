#pragma once
// The byte pair encoding model: one pre-token in, ids out.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/json_node.h"
#include "engine/tokenizer/vocabulary.h"

namespace trireme::tok {

/// Buffers that one thread keeps from word to word.
struct BpeScratch {
  struct Symbol {
    int32_t id;  // -1: merged into the symbol before it
    int32_t previous;
    int32_t next;  // -1: last
  };
  std::vector<Symbol> symbols;
  std::vector<uint64_t> queue;  // a heap of (rank << 32 | position of the pair's left symbol)
};

/// Immutable after parse.
class Bpe {
 public:
  /// From the object "model" of a tokenizer.json. Errors go to the node's status.
  static Bpe parse(const JsonNode& model);

  /// Appends the ids of one pre-token, valid UTF-8 of less than 2^31 bytes. Takes O(n log n): a heap of
  /// mergeable pairs over a linked list of symbols; the lowest rank goes first, of equal ranks the leftmost.
  /// Source: Sennrich et al., arXiv:1508.07909, in the reading of the `tokenizers` library.
  absl::Status encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>& ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    int32_t rank;
    int32_t id;
  };

  void parse_vocabulary(const JsonNode& vocab);
  void parse_merges(const JsonNode& merges);
  void add_merge(const JsonNode& at, int32_t rank, std::string_view left, std::string_view right);
  void index_characters();

  int32_t find_character(std::string_view character, uint32_t code_point, bool first, bool last) const;
  absl::Status split_into_symbols(std::string_view word, BpeScratch& scratch) const;
  void merge(BpeScratch& scratch) const;
  void push_pair(BpeScratch& scratch, int32_t left) const;
  const Merge* find_merge(int32_t left, int32_t right) const {
    const auto found = merges_.find(static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right));
    return found == merges_.end() ? nullptr : &found->second;
  }

  Vocabulary vocabulary_;
  absl::flat_hash_map<uint64_t, Merge> merges_;  // (left id << 32 | right id)
  std::vector<int32_t> merged_id_;               // by rank
  std::vector<int32_t> character_ids_;           // of low code points, -1 for none
  int32_t byte_ids_[256];                        // of "<0x00>" to "<0xFF>", -1 for none
  std::string unk_token_;
  std::string continuing_subword_prefix_;
  std::string end_of_word_suffix_;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

}  // namespace trireme::tok
