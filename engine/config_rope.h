#pragma once
// The rotary part of config.json.

#include <string>

#include "engine/config.h"
#include "engine/json_document.h"

namespace trireme {

/// Fills rope_theta and rope_scaling from any of the spellings transformers reads: `rope_theta` beside
/// `rope_scaling` with `type` or `rope_type`, or a `rope_parameters` block that holds both. `fields` are
/// those of the whole file and take the first fault.
void read_rope(JsonFields& fields, const std::string& where, ModelConfig& config);

}  // namespace trireme
