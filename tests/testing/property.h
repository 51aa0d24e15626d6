#pragma once
// Property tests with RapidCheck: RC_GTEST_PROP, with a fixed seed and a number of cases that fits the place.

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "absl/status/status.h"

namespace trireme {

/// Before main(): unless RC_PARAMS says something else, the seed is 1 and the number of cases that of the
/// environment's TRIREME_PROPERTY_CASES, or 300. A failure prints what to give RC_PARAMS to see it again.
extern const bool property_params_are_set;

/// Inside a property: fails it with the status' text.
inline void require_ok(const absl::Status& status) {
  if (!status.ok()) RC_FAIL(status.ToString());
}

}  // namespace trireme
