// Runs a kernel on the CPU: the threads of a block are fibres, and a barrier passes control on.
//
// Blocks run one after another, but those of a cluster together.  A warp runs until all its lanes wait for others, then another one;
// the order of the warps, and of the lanes each time, is random and follows from the seed, so
// whatever depends on the order soon shows.  Asynchronous copies come in two ways.  Early: the data
// are there at once, and a read that should have come before is wrong.  Late: they are there only
// after their group has been waited for, and until then the place holds garbage.
//
// Built without instrumentation itself; the sanitizers are told of fibres and barriers.
#include "cuda.h"
#include "matrices.h"

#include <algorithm>
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

Index3 threadIdx, blockIdx, gridDim;

namespace {

constexpr std::size_t STACK = 256 << 10;

// What lies where nothing was written: a finite number, since kernels mend sums that are not.
constexpr int GARBAGE = 0x49;

struct Copy {
    void* to;
    const void* from;
    int bytes, present;
    unsigned int group;
};

enum class State { READY, WAITING, DONE };

struct Fibre {
    unsigned int thread = 0, block = 0;  // the latter in its cluster
    State state = State::DONE;
    void* stack = nullptr;
    void* context = nullptr;  // where it goes on: its stack pointer, or its ucontext_t
    void* tsan = nullptr;
    unsigned int groups = 0;  // of copies, so far
    std::vector<Copy> in_flight;
};

// Where fibres wait until all have come.
struct Meeting {
    std::vector<Fibre*> here;
    unsigned int held = 0;  // how many meetings there were
    char order[2];          // only their addresses count, for ThreadSanitizer
};

using Together = void (*)(const Words (&given)[32], Words (&taken)[32]);

struct Warp {
    Meeting meeting;
    Together together;  // what the lanes do that have come
    Words given[32], taken[2][32];
};

// One block of the cluster that runs.
struct Block {
    unsigned int index;
    void* shared;
    Meeting barrier;
    std::vector<Warp> warps;
};

struct Launch {
    void (*kernel)(void**);
    void** arguments;
    bool late;
    unsigned int threads;  // of a block
    std::size_t shared_bytes;
    std::vector<Block> cluster;
    Meeting barrier;  // of all its blocks
    const char* fault;
    char start, end;  // only their addresses count, for ThreadSanitizer
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
    blockIdx.x = launch.cluster[to.block].index;
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
        fibre.stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#ifdef STANDIN_TSAN
        fibre.tsan = __tsan_create_fiber(0);
#endif
        prepare(fibre);
    }
    return all;
}

// Waits until `count` fibres have come.
void meet(Meeting& meeting, unsigned int count)
{
    meeting.here.push_back(running);
    running->state = State::WAITING;
    if (meeting.here.size() == count) {
        ++meeting.held;
        for (Fibre* fibre : meeting.here) fibre->state = State::READY;
        meeting.here.clear();
    }
    switch_to(scheduler);
}

// The same, and what anybody did before happens before what anybody does afterwards.
void meet_in_order(Meeting& meeting, unsigned int count)
{
    char& order = meeting.order[meeting.held % 2];
    happens_before(order);
    meet(meeting, count);
    happens_after(order);
}

// Ends the launch.
void fail(const char* fault)
{
    launch.fault = fault;
    switch_to(scheduler);
}

Block& my_block() { return launch.cluster[running->block]; }

bool in_shared(const void* address, std::size_t bytes)
{
    const auto first = static_cast<const char*>(my_block().shared);
    const auto begin = static_cast<const char*>(address);
    return begin >= first && begin + bytes <= first + launch.shared_bytes;
}

// My warp, all of whose lanes must come to the same instruction; null stands for a barrier.
Warp& my_warp(Together together)
{
    Warp& warp = my_block().warps[running->thread / 32];
    if (warp.meeting.here.empty()) warp.together = together;
    if (warp.together != together) fail("the lanes of a warp came to different instructions");
    return warp;
}

// Lets the lanes of my warp do something together; returns what I take of it.
Words with_my_warp(Together together, const Words& mine)
{
    Warp& warp = my_warp(together);
    const unsigned int lane = running->thread % 32;
    warp.given[lane] = mine;
    auto& taken = warp.taken[warp.meeting.held % 2];
    if (warp.meeting.here.size() == 31) together(warp.given, taken);
    meet(warp.meeting, 32);
    return taken[lane];
}

void carry_out(const Copy& copy)
{
    memcpy(copy.to, copy.from, copy.present);
    memset(static_cast<char*>(copy.to) + copy.present, 0, copy.bytes - copy.present);
}

struct Random {
    std::uint64_t state;

    unsigned int below(unsigned int n)
    {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        return static_cast<unsigned int>((state >> 32) * n >> 32);
    }
    void shuffle(unsigned int* all, unsigned int count)
    {
        for (unsigned int i = count; i > 1; --i) std::swap(all[i - 1], all[below(i)]);
    }
};

// Runs the threads of one cluster until all are done; false if some wait for ever.
bool run_cluster(std::vector<Fibre>& all, Random& random)
{
    const unsigned int of_block = launch.cluster[0].warps.size();
    const unsigned int warps = launch.cluster.size() * of_block;
    std::vector<unsigned int> warp_order(warps), order(32);
    for (unsigned int i = 0; i < warps; ++i) warp_order[i] = i;
    for (unsigned int left = launch.cluster.size() * launch.threads; left;) {
        bool ran = false;
        random.shuffle(warp_order.data(), warps);
        for (const unsigned int warp : warp_order) {
            const unsigned int thread = 32 * (warp % of_block);
            const unsigned int first = warp / of_block * launch.threads + thread;
            const unsigned int count = std::min(32u, launch.threads - thread);
            for (bool again = true; again; ran = ran || again) {
                again = false;
                for (unsigned int i = 0; i < count; ++i) order[i] = first + i;
                random.shuffle(order.data(), count);
                for (unsigned int i = 0; i < count; ++i) {
                    Fibre& fibre = all[order[i]];
                    if (fibre.state != State::READY) continue;
                    switch_to(fibre);
                    if (launch.fault) return false;
                    again = true;
                    left -= fibre.state == State::DONE;
                }
            }
        }
        if (!ran) {
            launch.fault = "some threads of a block never came to a barrier of the others";
            return false;
        }
    }
    return true;
}

}  // namespace

#include "hopper.h"

extern "C" void* standin_shared() { return my_block().shared; }

extern "C" void standin_barrier() { meet_in_order(my_block().barrier, launch.threads); }

extern "C" void standin_cluster_barrier()
{
    meet_in_order(launch.barrier, launch.cluster.size() * launch.threads);
}

extern "C" void standin_warp_barrier()
{
    const unsigned int lanes = std::min(32u, launch.threads - running->thread / 32 * 32);
    meet_in_order(my_warp(nullptr).meeting, lanes);
}

extern "C" void standin_aligned(const void* address, std::size_t bytes)
{
    if (reinterpret_cast<std::uintptr_t>(address) % bytes) fail("misaligned address");
}

extern "C" void standin_in_shared(const void* address, std::size_t bytes)
{
    if (!in_shared(address, bytes)) fail("an address that is not in the block's shared memory");
}

extern "C" void standin_copy_async(void* to, const void* from, int bytes, int present)
{
    standin_aligned(to, bytes);
    standin_aligned(from, bytes);
    standin_in_shared(to, bytes);
    // Of nothing the address does not matter.
    if (present > 0 && in_shared(from, 1)) fail("a copy that does not come from global memory");
    if (present < 0 || present > bytes) fail("a copy of more bytes than it has, or of fewer than none");
    const Copy copy = {to, from, bytes, present, running->groups};
    if (launch.late) {
        memset(to, GARBAGE, bytes);
        running->in_flight.push_back(copy);
    } else {
        carry_out(copy);
    }
}

extern "C" void standin_copy_async_commit() { ++running->groups; }

extern "C" void standin_copy_async_wait(unsigned int pending)
{
    std::vector<Copy>& copies = running->in_flight;
    const auto arrives = [&](const Copy& copy) { return copy.group + pending < running->groups; };
    const auto rest = std::find_if_not(copies.begin(), copies.end(), arrives);
    std::for_each(copies.begin(), rest, carry_out);
    copies.erase(copies.begin(), rest);
}

extern "C" void standin_load_matrices(unsigned int* to, const unsigned int (&row)[4], int count,
                                      bool transposed)
{
    Words mine = {};
    for (int i = 0; i < 4; ++i) mine.word[i] = row[i];
    const Words taken = with_my_warp(transposed ? load_matrices_transposed : load_matrices, mine);
    for (int i = 0; i < count; ++i) to[i] = taken.word[i];
}

extern "C" void standin_mma(Matrices kind, float (&sum)[4], const unsigned int (&a)[4],
                            const unsigned int (&b)[2])
{
    Words mine;
    for (int i = 0; i < 4; ++i) {
        mine.word[i] = a[i];
        __builtin_memcpy(&mine.word[6 + i], &sum[i], sizeof sum[i]);
    }
    for (int i = 0; i < 2; ++i) mine.word[4 + i] = b[i];
    const Together multiply[] = {mma_f16, mma_bf16, mma_tf32};
    const Words taken = with_my_warp(multiply[static_cast<int>(kind)], mine);
    for (int i = 0; i < 4; ++i) __builtin_memcpy(&sum[i], &taken.word[i], sizeof sum[i]);
}

// Returns null, or what was wrong.
extern "C" const char* standin_launch(void (*kernel)(void**), unsigned int blocks,
                                      unsigned int cluster, unsigned int threads,
                                      std::size_t shared_bytes, void** arguments,
                                      std::uint64_t seed, bool late)
{
    if (blocks % cluster) return "the blocks of a grid must be whole clusters";
    std::vector<Fibre>& all = fibres(cluster * threads);
    Random random = {seed * 2 + 1};
    running = &scheduler;
#ifdef STANDIN_TSAN
    scheduler.tsan = __tsan_get_current_fiber();
#endif
    launch.kernel = kernel;
    launch.arguments = arguments;
    launch.late = late;
    launch.threads = threads;
    launch.shared_bytes = shared_bytes;
    // Room for all, since ThreadSanitizer would see a vector grow.
    launch.barrier.here.reserve(cluster * threads);
    launch.cluster.resize(cluster);
    for (Block& block : launch.cluster) {
        block.barrier.here.reserve(threads);
        block.warps.resize((threads + 31) / 32);
        for (Warp& warp : block.warps) warp.meeting.here.reserve(32);
    }
    launch.fault = nullptr;
    gridDim.x = blocks;
    for (unsigned int first = 0; first < blocks && !launch.fault; first += cluster) {
        for (unsigned int block = 0; block < cluster; ++block) {
            Block& one = launch.cluster[block];
            one.index = first + block;
            // A heap block of exactly this size, so that the sanitizers see where it ends.
            if (posix_memalign(&one.shared, 1024, shared_bytes)) abort();
            memset(one.shared, GARBAGE, shared_bytes);
            for (unsigned int thread = 0; thread < threads; ++thread) {
                Fibre& fibre = all[block * threads + thread];
                fibre.thread = thread;
                fibre.block = block;
                fibre.state = State::READY;
                fibre.groups = 0;
                fibre.in_flight.clear();
            }
        }
        forget_hopper();
        happens_before(launch.start);
        if (run_cluster(all, random)) {
            happens_after(launch.end);
            launch.fault = left_behind();
        } else {
            for (unsigned int i = 0; i < cluster * threads; ++i) prepare(all[i]);
            launch.barrier.here.clear();
            for (Block& block : launch.cluster) {
                block.barrier.here.clear();
                for (Warp& warp : block.warps) warp.meeting.here.clear();
            }
        }
        for (Block& block : launch.cluster) free(block.shared);
    }
    return launch.fault;
}

// Memory for arrays: a heap block of exactly this size.
extern "C" void* standin_allocate(std::size_t bytes) { return malloc(bytes); }
extern "C" void standin_free(void* memory) { free(memory); }
