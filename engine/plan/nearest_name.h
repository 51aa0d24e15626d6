#pragma once
// What a user may have meant.

#include <string>
#include <string_view>
#include <vector>

namespace trireme {

/// Letters to insert, delete or replace, case and the signs '-', '_', ' ' aside. Source: Wagner and Fischer,
/// JACM 1974.
int edit_distance(std::string_view a, std::string_view b);

/// Up to `count` of `names`, those nearest to `name` first; equals keep their order. A name that contains
/// `name`, or is contained in it, is near however long it is.
std::vector<std::string> nearest_names(std::string_view name, const std::vector<std::string>& names,
                                       size_t count);

}  // namespace trireme
