#include "tests/simt/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <boost/context/detail/fcontext.hpp>
#include <cstdio>
#include <cstdlib>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SIMT_ASAN(call) call
#else
#define SIMT_ASAN(call)
#endif

namespace simt {

namespace context = boost::context::detail;

/// Pages of its own, with one below that nobody may touch: an overflow faults.
struct Fiber::Stack {
  explicit Stack(size_t wanted) : page(static_cast<size_t>(sysconf(_SC_PAGESIZE))) {
    bytes = (wanted + page - 1) / page * page;
    memory = mmap(nullptr, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                  -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) {
      std::perror("the stack of a fiber");
      std::abort();
    }
  }
  ~Stack() { munmap(memory, bytes + page); }
  char* bottom() const { return static_cast<char*>(memory) + page; }
  char* top() const { return bottom() + bytes; }

  size_t page;
  size_t bytes = 0;
  void* memory = nullptr;
};

struct Fiber::Entry {
  static void run(context::transfer_t from) {
    auto* fiber = static_cast<Fiber*>(from.data);
    // Its fake stack stays for the next body: making one takes longer than most bodies do.
    SIMT_ASAN(
        __sanitizer_finish_switch_fiber(fiber->fake_stack_, &fiber->caller_bottom_, &fiber->caller_bytes_));
    fiber->context_ = from.fctx;
    fiber->body_();
    fiber->ended_ = true;
    SIMT_ASAN(
        __sanitizer_start_switch_fiber(&fiber->fake_stack_, fiber->caller_bottom_, fiber->caller_bytes_));
    context::jump_fcontext(fiber->context_, nullptr);
  }
};

Fiber::Fiber(size_t stack_bytes) : stack_(std::make_unique<Stack>(stack_bytes)) {}
Fiber::~Fiber() = default;

void Fiber::reset(std::function<void()> body) {
  body_ = std::move(body);
  context_ = context::make_fcontext(stack_->top(), stack_->bytes, &Entry::run);
  ended_ = false;
}

void Fiber::resume() {
  [[maybe_unused]] void* caller_stack = nullptr;
  SIMT_ASAN(__sanitizer_start_switch_fiber(&caller_stack, stack_->bottom(), stack_->bytes));
  const context::transfer_t back = context::jump_fcontext(context_, this);
  SIMT_ASAN(__sanitizer_finish_switch_fiber(caller_stack, nullptr, nullptr));
  context_ = back.fctx;
}

void Fiber::yield() {
  SIMT_ASAN(__sanitizer_start_switch_fiber(&fake_stack_, caller_bottom_, caller_bytes_));
  const context::transfer_t back = context::jump_fcontext(context_, nullptr);
  SIMT_ASAN(__sanitizer_finish_switch_fiber(fake_stack_, &caller_bottom_, &caller_bytes_));
  context_ = back.fctx;
}

}  // namespace simt
