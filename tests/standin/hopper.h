// Hopper's asynchronous instructions: barriers that count bytes, the copy engine, products by a warp
// group.  A part of runtime.cpp.
//
// Early: a box is in shared memory, and its bytes are counted, as soon as it is asked for; products
// are made when the last thread of the group has committed them.  Late: a box is garbage until
// somebody waits for the barrier that counts it, and the tiles are read, and the sums written, only
// when the whole group waits; a box is stored only when its thread waits for that.
//
// Where a block reaches into the shared memory of another one of its cluster, two barriers of the
// cluster are asked for, whatever the order was this time: one before, since the other one may not
// have begun, and one after, since it may end.
#pragma once
#include <map>

namespace {

constexpr unsigned int WARP_GROUP = 128;

// What the test's device writes in place of the driver's tensor map; sizes in elements of two bytes,
// strides in bytes, the nearest axis first.
struct Map {
    char* array;
    std::uint64_t size[5], stride[5];
    std::uint32_t box[5], rank;
};
static_assert(sizeof(Map) <= 128, "as large as a tensor map");

struct Box {
    char* here;  // in shared memory
    Map map;
    int at[5];

    std::size_t bytes() const
    {
        std::size_t product = 2;
        for (const std::uint32_t n : map.box) product *= n;
        return product;
    }
};

void wait(std::vector<Fibre*>& waiting)
{
    waiting.push_back(running);
    running->state = State::WAITING;
    switch_to(scheduler);
}

void wake(std::vector<Fibre*>& waiting)
{
    for (Fibre* fibre : waiting) fibre->state = State::READY;
    waiting.clear();
}

struct Mbarrier {
    int arrivals, missing;  // of each phase, and of this one
    long long bytes = 0;    // announced and not yet there
    int parity = 0;
    unsigned int made = 0;     // after so many barriers of the cluster
    bool seen_by_engine = false;
    std::vector<Box> in_flight;
    std::vector<Fibre*> waiting;

    // Whether or not the phase is complete: those who wait may want to look again.
    void changed()
    {
        if (!missing && !bytes) {
            missing = arrivals;
            parity ^= 1;
        }
        wake(waiting);
    }
};

void arrive(void* at, Mbarrier& barrier, int bytes)
{
    happens_before(*static_cast<char*>(at));
    if (!barrier.missing) fail("more arrivals at a barrier than it was initialised for");
    barrier.bytes += bytes;
    --barrier.missing;
    barrier.changed();
}

struct Wgmma {
    float* sum;
    int columns;
    std::uint64_t rows_at, columns_at;
    bool bfloat16;
};

struct Multiplier {  // one thread's share in its warp group, and what it stores
    bool fenced, stores_fenced;
    std::vector<Box> stores, committed_stores;
    std::vector<Wgmma> asked_for, committed;
    std::uint64_t made;  // the group's count at the last commit
};

struct SomeThreads {
    Meeting meeting;
    unsigned int threads = 0;
    bool fenced = true;  // have all shown the copy engine what they wrote, before they came?
    bool coming_fenced = true;
};

struct WarpGroup {
    unsigned int committed, come_to_wait;
    unsigned int registers, come_for_registers;
    std::uint64_t made;  // batches
    std::vector<Fibre*> waiting;
    char commit, done;  // only their addresses count, for ThreadSanitizer
};

struct HopperBlock {
    std::vector<Multiplier> multipliers;
    std::vector<WarpGroup> warp_groups;
    std::map<int, SomeThreads> some_threads;
};

std::map<void*, Mbarrier> mbarriers;  // of all blocks
std::vector<HopperBlock> hopper_blocks;
long long last_reach;  // into another block: after how many barriers of the cluster? -1 if never

// What the compiler may give each thread of so large a block: a multiple of 8.
unsigned int registers_at_launch()
{
    return std::min(65536 / launch.threads, 255u) / 8 * 8;
}

void forget_hopper()
{
    mbarriers.clear();
    last_reach = -1;
    hopper_blocks.assign(launch.cluster.size(), {});
    for (HopperBlock& block : hopper_blocks) {
        block.multipliers.resize(launch.threads);
        block.warp_groups.resize((launch.threads + WARP_GROUP - 1) / WARP_GROUP);
        for (WarpGroup& group : block.warp_groups) {
            group.waiting.reserve(WARP_GROUP);
            group.registers = registers_at_launch();
        }
    }
}

HopperBlock& my_hopper_block() { return hopper_blocks[running->block]; }
Multiplier& me() { return my_hopper_block().multipliers[running->thread]; }
WarpGroup& my_warp_group() { return my_hopper_block().warp_groups[running->thread / WARP_GROUP]; }

Mbarrier& mbarrier(void* at)
{
    std::uint64_t bits;
    memcpy(&bits, at, sizeof bits);  // a read, for the sanitizers
    const auto found = mbarriers.find(at);
    if (found == mbarriers.end()) fail("a barrier that nobody has initialised");
    return found->second;
}

// What lies in this block where `mine` does in the running one.
template <typename T>
T* in_block(unsigned int block, T* mine)
{
    if (block >= launch.cluster.size()) fail("the cluster has no such block");
    const auto place = reinterpret_cast<char*>(mine) - static_cast<char*>(my_block().shared);
    return reinterpret_cast<T*>(static_cast<char*>(launch.cluster[block].shared) + place);
}

// A barrier that another block may have made, which is reached for in the other's shared memory.
Mbarrier& mbarrier_of(unsigned int block, void* at)
{
    if (block == running->block) return mbarrier(at);
    const auto found = mbarriers.find(at);
    if (found == mbarriers.end() || found->second.made == launch.barrier.held)
        fail("another block may not have made this barrier yet");
    last_reach = launch.barrier.held;
    return found->second;
}

// Shared memory begins at a multiple of 1024.
char* swizzled(char* at)
{
    const auto address = reinterpret_cast<std::uintptr_t>(at);
    return at + ((address ^ (address >> 3 & 0x70)) - address);
}

// Calls what(row in shared memory, its place in the array, begin, end) for each row of a box; elements
// from begin to end are inside the array.
template <typename What>
void for_rows(const Box& box, What what)
{
    const Map& map = box.map;
    const long long left = static_cast<long long>(map.size[0]) - box.at[0];
    const long long first = box.at[0] < 0 ? -box.at[0] : 0, last = left < 64 ? left : 64;
    char* here = box.here;
    std::uint32_t i[5] = {};
    for (bool more = true; more; here += 128) {
        char* there = map.array + 2 * box.at[0];
        bool inside = first < last;
        for (int a = 1; a < 5; ++a) {
            const long long index = static_cast<long long>(box.at[a]) + i[a];
            inside = inside && index >= 0 && index < static_cast<long long>(map.size[a]);
            there += index * static_cast<long long>(map.stride[a]);
        }
        what(here, there, inside ? 2 * first : 0, inside ? 2 * last : 0);
        more = false;
        for (int a = 1; a < 5 && !more; ++a) {
            more = ++i[a] < map.box[a];
            if (!more) i[a] = 0;
        }
    }
}

void fetch(const Box& box)
{
    for_rows(box, [](char* here, const char* there, long long begin, long long end) {
        char row[128] = {};
        if (begin < end) memcpy(row + begin, there + begin, end - begin);
        for (int piece = 0; piece < 128; piece += 16)
            memcpy(swizzled(here + piece), row + piece, 16);
    });
}

void send(const Box& box)
{
    for_rows(box, [](char* here, char* there, long long begin, long long end) {
        if (begin == end) return;
        char row[128];
        for (int piece = 0; piece < 128; piece += 16)
            memcpy(row + piece, swizzled(here + piece), 16);
        memcpy(there + begin, row + begin, end - begin);
    });
}

float widened(unsigned short bits, bool bfloat16)
{
    if (bfloat16) {
        const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
        float value;
        memcpy(&value, &wide, sizeof value);
        return value;
    }
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return static_cast<float>(half);
}

// Reads 8 neighbours in a tile.
void read(std::uint64_t address, bool bfloat16, float* values)
{
    unsigned short bits[8];
    memcpy(bits, swizzled(static_cast<char*>(my_block().shared) + address), sizeof bits);
    for (int i = 0; i < 8; ++i) values[i] = widened(bits[i], bfloat16);
}

// Makes one instruction's products for all threads of a group.
template <int COLUMNS>
void make(const Wgmma& one, float* const (&sums)[WARP_GROUP])
{
    const auto field = [](std::uint64_t descriptor, int bit) { return (descriptor >> bit & 0x3fff) << 4; };
    const std::uint64_t rows_at = field(one.rows_at, 0), columns_at = field(one.columns_at, 0);
    const std::uint64_t eight_rows = field(one.rows_at, 32), eight_deep = field(one.columns_at, 32);
    const std::uint64_t next_columns = field(one.columns_at, 16);
    static float rows[64][16], columns[16][COLUMNS], sum[COLUMNS];
    for (int i = 0; i < 64; ++i)
        for (int k = 0; k < 16; k += 8)
            read(rows_at + i / 8 * eight_rows + i % 8 * 128 + 2 * k, one.bfloat16, &rows[i][k]);
    for (int k = 0; k < 16; ++k)
        for (int j = 0; j < COLUMNS; j += 8)
            read(columns_at + j / 64 * next_columns + k / 8 * eight_deep + k % 8 * 128 + j % 64 * 2,
                 one.bfloat16, &columns[k][j]);
    const auto mine = [&](int i, int j) -> float& {
        const int thread = i / 16 * 32 + i % 8 * 4 + j % 8 / 2;
        return sums[thread][j / 8 * 4 + i % 16 / 8 * 2 + j % 2];
    };
    for (int i = 0; i < 64; ++i) {
        for (int j = 0; j < COLUMNS; ++j) sum[j] = mine(i, j);
        add_products(sum, rows[i], columns, 16);
        for (int j = 0; j < COLUMNS; ++j) mine(i, j) = sum[j];
    }
}

// Makes everything that my group has committed.
void make()
{
    WarpGroup& group = my_warp_group();
    const unsigned int first = running->thread / WARP_GROUP * WARP_GROUP;
    Multiplier* const threads = &my_hopper_block().multipliers[first];
    for (std::size_t number = 0; number < threads->committed.size(); ++number) {
        const Wgmma& one = threads->committed[number];
        float* sums[WARP_GROUP];
        for (unsigned int t = 0; t < WARP_GROUP; ++t) {
            const std::vector<Wgmma>& same = threads[t].committed;
            if (same.size() != threads->committed.size() || same[number].columns != one.columns
                || same[number].rows_at != one.rows_at || same[number].columns_at != one.columns_at)
                fail("the threads of a warp group ask for different products");
            sums[t] = same[number].sum;
        }
        if (one.rows_at >> 62 != 1 || one.columns_at >> 62 != 1)
            fail("a descriptor without the swizzle of 128 bytes");
        if ((one.rows_at | one.columns_at) & 0x3fffc000c000c000)
            fail("a descriptor with bits in places that have no meaning");
        one.columns == 64 ? make<64>(one, sums) : make<128>(one, sums);
    }
    for (unsigned int t = 0; t < WARP_GROUP; ++t) threads[t].committed.clear();
    group.committed = group.come_to_wait = 0;
    ++group.made;
    wake(group.waiting);
}

}  // namespace

// As on a GPU, the number of the block in its cluster stands above 24 bits of the place in it.
extern "C" unsigned int standin_shared_address(const void* p)
{
    const auto place = static_cast<const char*>(p) - static_cast<const char*>(my_block().shared);
    return running->block << 24 | static_cast<unsigned int>(place);
}

extern "C" void standin_mbarrier_init(void* barrier, int arrivals)
{
    memset(barrier, 0, 8);  // a write, for the sanitizers
    Mbarrier& mine = mbarriers[barrier] = {arrivals, arrivals};
    mine.made = launch.barrier.held;
    mine.waiting.reserve(launch.threads);  // ThreadSanitizer would see it grow
}

extern "C" void standin_mbarrier_init_fence()
{
    const char* const shared = static_cast<char*>(my_block().shared);
    for (auto& one : mbarriers)
        if (one.first >= shared && one.first < shared + launch.shared_bytes)
            one.second.seen_by_engine = true;
}

extern "C" void standin_mbarrier_arrive(void* barrier, int bytes)
{
    arrive(barrier, mbarrier(barrier), bytes);
}

extern "C" void standin_mbarrier_arrive_in(unsigned int block, void* barrier)
{
    void* const there = in_block(block, barrier);
    arrive(there, mbarrier_of(block, there), 0);
}

extern "C" void standin_mbarrier_wait(void* barrier, int parity)
{
    Mbarrier& mine = mbarrier(barrier);
    while (mine.parity == parity) {
        if (mine.missing || mine.in_flight.empty()) {
            wait(mine.waiting);
            continue;
        }
        for (const Box& box : mine.in_flight) {
            fetch(box);
            mine.bytes -= box.bytes();
        }
        mine.in_flight.clear();
        mine.changed();
    }
    happens_after(*static_cast<char*>(barrier));
}

Box box_of(void* here, const void* map, const int* at, int rank)
{
    if (reinterpret_cast<std::uintptr_t>(here) % 1024) fail("a swizzled tile must begin at a multiple of 1024");
    Box box = {static_cast<char*>(here), {}, {}};
    memcpy(&box.map, map, sizeof box.map);
    if (box.map.rank != static_cast<unsigned int>(rank))
        fail("a box with another number of axes than its tensor map");
    for (int a = 0; a < rank; ++a) box.at[a] = at[a];
    return box;
}

extern "C" void standin_tma_load(void* to, const void* map, void* barrier, const int* at, int rank)
{
    standin_tma_multicast(1u << running->block, to, map, barrier, at, rank);
}

extern "C" void standin_tma_multicast(unsigned int blocks, void* to, const void* map, void* barrier,
                                      const int* at, int rank)
{
    for (unsigned int block = 0; blocks >> block; ++block) {
        if (!(blocks >> block & 1)) continue;
        void* const counted = in_block(block, barrier);
        Mbarrier& there = mbarrier_of(block, counted);
        if (!there.seen_by_engine) fail("the copy engine has not been shown a barrier");
        const Box box = box_of(in_block(block, to), map, at, rank);
        if (launch.late) {
            memset(box.here, GARBAGE, box.bytes());
            there.in_flight.push_back(box);
            there.changed();
        } else {
            fetch(box);
            there.bytes -= box.bytes();
            happens_before(*static_cast<char*>(counted));
            there.changed();
        }
    }
}

extern "C" void standin_tma_store_fence() { me().stores_fenced = true; }

extern "C" void standin_tma_store(const void* map, const void* from, const int* at, int rank)
{
    for (const auto& some : my_hopper_block().some_threads)
        if (!some.second.fenced) fail("the copy engine has not been shown what was written");
    const Box box = box_of(const_cast<void*>(from), map, at, rank);
    if (launch.late)
        me().stores.push_back(box);
    else
        send(box);
}

extern "C" void standin_tma_store_commit()
{
    Multiplier& mine = me();
    for (const Box& box : mine.stores) mine.committed_stores.push_back(box);
    mine.stores.clear();
}

extern "C" void standin_tma_store_wait()
{
    Multiplier& mine = me();
    for (const Box& box : mine.committed_stores) send(box);
    mine.committed_stores.clear();
}

// What the blocks of a cluster leave behind that was to be done in their shared memory; null if
// nothing.
const char* left_behind()
{
    for (const HopperBlock& block : hopper_blocks) {
        for (const Multiplier& one : block.multipliers)
            if (!one.committed_stores.empty() || !one.stores.empty())
                return "a block ended before its boxes were stored";
        unsigned int registers = 0;
        for (const WarpGroup& group : block.warp_groups) {
            if (group.come_for_registers % WARP_GROUP)
                return "some threads of a warp group never came to setmaxnreg";
            registers += group.registers;
        }
        if (registers > registers_at_launch() * block.warp_groups.size())
            return "warp groups wait for registers that the block does not have";
    }
    if (last_reach == launch.barrier.held)
        return "a block may have ended before another one reached into it";
    return nullptr;
}

extern "C" void standin_sync_some(int number, unsigned int threads)
{
    if (number < 1 || number > 15) fail("barriers of some warps have the numbers 1 to 15");
    SomeThreads& some = my_hopper_block().some_threads[number];
    if (threads % 32 || (some.threads && some.threads != threads))
        fail("a barrier of some warps waits for whole warps, always as many");
    some.threads = threads;
    bool& fenced = me().stores_fenced;
    some.coming_fenced = some.coming_fenced && fenced;
    fenced = false;
    if (some.meeting.here.size() + 1 == threads) {
        some.fenced = some.coming_fenced;
        some.coming_fenced = true;
    }
    some.meeting.here.reserve(threads);
    meet_in_order(some.meeting, threads);
}

// setmaxnreg.  What all groups have together is counted at the end.
extern "C" void standin_set_registers(unsigned int count, bool more)
{
    if (count % 8 || count < 24 || count > 256)
        fail("a thread may have 24 to 256 registers, a multiple of 8");
    WarpGroup& group = my_warp_group();
    if (!(group.come_for_registers++ % WARP_GROUP)) {
        if (more ? count < group.registers : count > group.registers)
            fail("setmaxnreg.inc and .dec do not go the other way");
        group.registers = count;
    }
    if (group.registers != count) fail("the threads of a warp group ask for different registers");
}

extern "C" void standin_wgmma_fence() { me().fenced = true; }

extern "C" void standin_wgmma(float* sum, int columns, unsigned long long rows_at,
                              unsigned long long columns_at, bool bfloat16)
{
    Multiplier& mine = me();
    if (!mine.fenced) fail("products without a fence before them");
    mine.asked_for.push_back({sum, columns, rows_at, columns_at, bfloat16});
}

extern "C" void standin_wgmma_commit()
{
    Multiplier& mine = me();
    WarpGroup& group = my_warp_group();
    mine.committed.insert(mine.committed.end(), mine.asked_for.begin(), mine.asked_for.end());
    mine.asked_for.clear();
    mine.made = group.made;
    happens_before(group.commit);
    if (++group.committed % WARP_GROUP || launch.late) return;
    happens_after(group.commit);
    make();
    happens_before(group.done);
}

extern "C" void standin_wgmma_wait()
{
    Multiplier& mine = me();
    WarpGroup& group = my_warp_group();
    mine.fenced = false;
    if (mine.committed.empty() && mine.made == group.made) return;
    if (launch.late && ++group.come_to_wait == WARP_GROUP) {
        happens_after(group.commit);
        make();
        happens_before(group.done);
    }
    while (group.made == mine.made) wait(group.waiting);
    happens_after(group.done);
}
