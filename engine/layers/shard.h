#pragma once

#include "engine/plan/shard_plan.h"

namespace trireme {

/// Where a layer's weights are cut. Models hand it on; only layers look inside.
struct Shard {
  const ModelShape& model;
  const TensorParallelLayout& layout;
  int tp_rank;

  const HeadGroup& heads() const { return layout.heads.at(tp_rank); }
  int num_local_heads() const { return heads().head_end - heads().head_begin; }
  int num_local_kv_heads() const { return heads().kv_head_end - heads().kv_head_begin; }
};

}  // namespace trireme
