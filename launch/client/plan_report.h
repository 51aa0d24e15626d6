#pragma once
// A plan for people and for programs.

#include <nlohmann/json.hpp>
#include <string>

#include "engine/plan/planner.h"

namespace trireme::client {

/// A table of layouts, refused ones with their reason, then the best, notes and assumptions.
std::string plan_text(const PlanReport& report);

/// The schema is in `trireme plan --help`.
nlohmann::json plan_json(const PlanReport& report);

/// What plan_json() gives, field by field.
extern const char kPlanJsonHelp[];

}  // namespace trireme::client
