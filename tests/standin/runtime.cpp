// Runs a kernel on the CPU: the threads of a block are fibres, and a barrier passes control on.
//
// Blocks run one after another.  Between two barriers the threads of a block run one after another
// in a random order that follows from the seed, so whatever depends on the order soon shows.
// Asynchronous copies come in two ways.  Early: the data are there at once, and a read that should
// have come before is wrong.  Late: they are there only after the wait, and until then the place
// holds garbage.
//
// Built without instrumentation itself; the sanitizers are told of fibres and barriers.
#include "cuda.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#ifdef STANDIN_ASAN
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef STANDIN_TSAN
#include <sanitizer/tsan_interface.h>
#endif

Index3 threadIdx, blockIdx;

namespace {

constexpr std::size_t STACK = 256 << 10;

struct Copy {
    void* to;
    const void* from;
    std::size_t bytes;
    bool there;
};

enum class State { READY, AT_BARRIER, DONE };

struct Fibre {
    unsigned int thread = 0;
    State state = State::DONE;
    void* stack = nullptr;
    void* context = nullptr;  // where it goes on: its stack pointer, or its ucontext_t
    void* tsan = nullptr;
    unsigned int barriers = 0;
    std::vector<Copy> in_flight;
};

struct Launch {
    void (*kernel)(void**);
    void** arguments;
    void* shared;
    bool late;
    char start, end, barrier[2];  // only their addresses count, for ThreadSanitizer
};

Launch launch;
Fibre scheduler;
Fibre* running;

// --- switching stacks -----------------------------------------------------------------------------

void body();

#if defined(__x86_64__)
// Saves the registers that a function must keep, and goes on where the other fibre saved its own.
extern "C" void standin_switch(void** from, void* to);
asm(R"(
.text
.globl standin_switch
.type standin_switch, @function
standin_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");

void prepare(Fibre& fibre)
{
    auto top = reinterpret_cast<void**>(static_cast<char*>(fibre.stack) + STACK);
    *--top = nullptr;  // body never returns, and its stack is aligned as if it had been called
    *--top = reinterpret_cast<void*>(body);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    fibre.context = top;
}

void jump(Fibre& from, Fibre& to) { standin_switch(&from.context, to.context); }
#else
void prepare(Fibre& fibre)
{
    auto context = new ucontext_t;
    getcontext(context);
    context->uc_stack.ss_sp = fibre.stack;
    context->uc_stack.ss_size = STACK;
    makecontext(context, body, 0);
    fibre.context = context;
}

void jump(Fibre& from, Fibre& to)
{
    if (!from.context) from.context = new ucontext_t;
    swapcontext(static_cast<ucontext_t*>(from.context), static_cast<ucontext_t*>(to.context));
}
#endif

#ifdef STANDIN_ASAN
const void* scheduler_stack;
std::size_t scheduler_stack_size;
#endif

void arrived()
{
#ifdef STANDIN_ASAN
    const void* bottom;
    std::size_t size;
    __sanitizer_finish_switch_fiber(nullptr, &bottom, &size);
    if (running != &scheduler && !scheduler_stack) {
        scheduler_stack = bottom;
        scheduler_stack_size = size;
    }
#endif
}

void switch_to(Fibre& to)
{
    Fibre& from = *running;
    running = &to;
    threadIdx.x = to.thread;
#ifdef STANDIN_ASAN
    const bool back = &to == &scheduler;
    __sanitizer_start_switch_fiber(nullptr, back ? scheduler_stack : to.stack,
                                   back ? scheduler_stack_size : STACK);
#endif
#ifdef STANDIN_TSAN
    __tsan_switch_to_fiber(to.tsan, __tsan_switch_to_fiber_no_sync);
#endif
    jump(from, to);
    arrived();
}

void happens_before([[maybe_unused]] char& what)
{
#ifdef STANDIN_TSAN
    __tsan_release(&what);
#endif
}

void happens_after([[maybe_unused]] char& what)
{
#ifdef STANDIN_TSAN
    __tsan_acquire(&what);
#endif
}

// A fibre runs one thread of each block.
void body()
{
    arrived();
    for (;;) {
        happens_after(launch.start);
        launch.kernel(launch.arguments);
        running->state = State::DONE;
        happens_before(launch.end);
        switch_to(scheduler);
    }
}

std::vector<Fibre>& fibres(unsigned int count)
{
    static std::vector<Fibre> all;
    if (all.capacity() == 0) all.reserve(1024);  // they must not move
    while (all.size() < count) {
        Fibre& fibre = all.emplace_back();
        fibre.thread = all.size() - 1;
        fibre.stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#ifdef STANDIN_TSAN
        fibre.tsan = __tsan_create_fiber(0);
#endif
        prepare(fibre);
    }
    return all;
}

void carry_out(const Copy& copy)
{
    if (copy.there)
        memcpy(copy.to, copy.from, copy.bytes);
    else
        memset(copy.to, 0, copy.bytes);
}

}  // namespace

extern "C" void* standin_shared() { return launch.shared; }

extern "C" void standin_barrier()
{
    char& barrier = launch.barrier[running->barriers++ % 2];
    happens_before(barrier);
    running->state = State::AT_BARRIER;
    switch_to(scheduler);
    happens_after(barrier);
}

extern "C" void standin_copy_async(void* to, const void* from, std::size_t bytes, bool there)
{
    const Copy copy = {to, from, bytes, there};
    if (launch.late) {
        memset(to, 0xff, bytes);
        running->in_flight.push_back(copy);
    } else {
        carry_out(copy);
    }
}

extern "C" void standin_copy_async_wait()
{
    for (const Copy& copy : running->in_flight) carry_out(copy);
    running->in_flight.clear();
}

// Returns 0, or 1 if some threads of a block ended while others waited for them at a barrier.
extern "C" int standin_launch(void (*kernel)(void**), unsigned int blocks, unsigned int threads,
                              std::size_t shared_bytes, void** arguments, std::uint64_t seed, bool late)
{
    std::vector<Fibre>& all = fibres(threads);
    std::vector<unsigned int> order(threads);
    for (unsigned int i = 0; i < threads; ++i) order[i] = i;
    std::uint64_t random = seed * 2 + 1;
    const auto below = [&](unsigned int n) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        return static_cast<unsigned int>(random % n);
    };
    running = &scheduler;
#ifdef STANDIN_TSAN
    scheduler.tsan = __tsan_get_current_fiber();
#endif
    launch.kernel = kernel;
    launch.arguments = arguments;
    launch.late = late;
    for (unsigned int block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        // A heap block of exactly this size, so that the sanitizers see where it ends.
        launch.shared = malloc(shared_bytes);
        memset(launch.shared, 0xff, shared_bytes);
        for (unsigned int i = 0; i < threads; ++i) {
            all[i].state = State::READY;
            all[i].barriers = 0;
            all[i].in_flight.clear();
        }
        happens_before(launch.start);
        for (unsigned int left = threads, done = 0; left; left -= done) {
            done = 0;
            for (unsigned int i = threads; i > 1; --i) std::swap(order[i - 1], order[below(i)]);
            for (const unsigned int i : order) {
                switch_to(all[i]);
                done += all[i].state == State::DONE;
            }
            if (done && done != threads) {
                for (unsigned int i = 0; i < threads; ++i) prepare(all[i]);
                free(launch.shared);
                return 1;
            }
        }
        happens_after(launch.end);
        free(launch.shared);
    }
    return 0;
}

// Memory for arrays: a heap block of exactly this size.
extern "C" void* standin_allocate(std::size_t bytes) { return malloc(bytes); }
extern "C" void standin_free(void* memory) { free(memory); }
