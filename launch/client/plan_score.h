#pragma once
// How well the planner's arithmetic met a published sweep, for people and for programs.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/plan/sweep_score.h"

namespace trireme::client {

/// A line per point, the median absolute error, and every assumption.
std::string score_text(const std::vector<PointScore>& scores, const SweepConditions& conditions);

/// The schema is in `trireme project --help`.
nlohmann::json score_json(const std::vector<PointScore>& scores);

}  // namespace trireme::client
