#include "tests/testing/property.h"

#include <cstdlib>
#include <string>

namespace trireme {

const bool property_params_are_set = [] {
  const char* cases = std::getenv("TRIREME_PROPERTY_CASES");
  const std::string params = std::string("seed=1 max_success=") + (cases == nullptr ? "300" : cases);
  return setenv("RC_PARAMS", params.c_str(), /*overwrite=*/0) == 0;
}();

}  // namespace trireme
