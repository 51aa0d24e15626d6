#pragma once
// Programmer errors: abort in every build, with both values. Errors of users and files are absl::Status.

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

namespace trireme {

/// Which process of its job this one is, for messages: e.g. "rank 3 of 8", empty where it is the only one.
/// Set once, before there are other threads.
inline std::string& process_name() {
  static auto* name = new std::string;  // never destroyed: failures come late, too
  return *name;
}

[[noreturn]] inline void check_failed(const char* file, int line, const std::string& what) {
  const std::string who = process_name().empty() ? "" : " on " + process_name();
  std::fprintf(stderr, "%s:%d: check failed%s: %s\n", file, line, who.c_str(), what.c_str());
  std::abort();
}

template <typename A, typename B>
std::string describe_check(const char* expression, const A& a, const B& b) {
  std::ostringstream text;
  text << expression << " (" << a << " vs. " << b << ")";
  return text.str();
}

}  // namespace trireme

#define TRIREME_CHECK(condition) \
  ((condition) ? (void)0 : ::trireme::check_failed(__FILE__, __LINE__, #condition))
#define TRIREME_CHECK_OP(a, op, b)                                                             \
  do {                                                                                         \
    const auto& check_a = (a);                                                                 \
    const auto& check_b = (b);                                                                 \
    if (!(check_a op check_b))                                                                 \
      ::trireme::check_failed(__FILE__, __LINE__,                                              \
                              ::trireme::describe_check(#a " " #op " " #b, check_a, check_b)); \
  } while (false)
#define CHECK_EQ(a, b) TRIREME_CHECK_OP(a, ==, b)
#define CHECK_NE(a, b) TRIREME_CHECK_OP(a, !=, b)
#define CHECK_LT(a, b) TRIREME_CHECK_OP(a, <, b)
#define CHECK_LE(a, b) TRIREME_CHECK_OP(a, <=, b)
#define CHECK_GT(a, b) TRIREME_CHECK_OP(a, >, b)
#define CHECK_GE(a, b) TRIREME_CHECK_OP(a, >=, b)
