// Watches what a kernel's threads read and write while it runs in the emulator (cuda_cpu.h): two threads at
// one place of which one writes, and no barrier between; a read of what nobody has written; an index outside
// its array. This text stands before the kernel's source, which is compiled with -fsanitize=thread: what the
// compiler then calls for each access to memory is here, and not in a library.
//
// Watched are shared memory, and arrays that the kernel names by watch_array. A barrier of the block comes
// between two accesses if their threads have passed different numbers of barriers (so it is found in any
// order of turns); so does __syncwarp for threads of a warp. Blocks are never in order, except by counters
// that are atomic: a kernel that uses an atomic operation is not watched across blocks. Fences do nothing
// here, so a missing one is not found.

namespace watch {

#define SILENT __attribute__((no_sanitize("thread"), noinline, used))

extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[];  // where this library begins

enum Kind { RACE, WRITES_ONLY, UNWRITTEN, OUTSIDE, KINDS };

struct Access {
    long long thread, block, barriers, warp_barriers, place;  // place: of the code, or minus its line
    bool writes, atomic;
};

struct Cell {
    const char *address;  // of 4 bytes, or of fewer
    long long block;      // of shared memory: whose it is now, plus 1
    bool written;
    int accesses;         // bit i: whether there is a last[i]
    Access last[3];       // the last write, and the last reads by two threads
};

struct Array {
    const char *begin, *end;
    bool given;  // it holds something before the launch
};

struct Event {
    long long kind, array, index, size;
    Access first, second;
};

constexpr int CELLS = 1 << 15, ARRAYS = 12, LOGGED = 2048;
Cell cells[CELLS];
Array arrays[ARRAYS];
Event events[KINDS];
bool happened[KINDS], atomics_used;
int atomic_line;  // of the atomic operation that runs, or 0
struct Progress { long long block, barriers, warp_barriers; } progress[emulator::MAX_THREADS];
struct Logged { long long thread, cell, writes, unwritten; } logged[LOGGED];  // of shared memory
long long log_length;
bool busy[emulator::MAX_THREADS];  // which threads of a block used watched memory

SILENT long long this_block() {
    return blockIdx.x + (long long)gridDim.x * (blockIdx.y + (long long)gridDim.y * blockIdx.z);
}

SILENT Progress &mine() {
    Progress &progress_ = progress[emulator::current - emulator::threads];
    if (progress_.block != this_block() + 1) progress_ = {this_block() + 1, 0, 0};
    return progress_;
}

SILENT Cell *cell_of(const char *address) {
    unsigned long long at = (unsigned long long)address * 0x9E3779B97F4A7C15ull >> 49;
    for (int tries = 0; tries < CELLS; tries++, at = (at + 1) % CELLS) {
        if (!cells[at].address) cells[at].address = address;
        if (cells[at].address == address) return &cells[at];
    }
    return nullptr;  // full: no longer watched
}

SILENT bool in_order(const Access &a, const Access &b) {
    if (a.atomic && b.atomic) return true;
    if (a.block != b.block) return atomics_used;
    if (a.thread == b.thread || a.barriers != b.barriers) return true;
    return a.thread / 32 == b.thread / 32 && a.warp_barriers != b.warp_barriers;
}

SILENT void note(Kind kind, int array, long long index, long long size, const Access &first,
                 const Access &second) {
    if (!happened[kind]) events[kind] = {kind, array, index, size, first, second};
    happened[kind] = true;
}

SILENT bool is_shared(const char *address) {
    bool fixed = address >= emulator::__start_shared_memory && address < emulator::__stop_shared_memory;
    return fixed || (address >= emulator::dynamic_shared && address - emulator::dynamic_shared < 1 << 18);
}

// The array whose addresses are around this one: those of others are far away. -1: none, so not watched.
SILENT int array_of(const char *address) {
    for (int i = 0; i < ARRAYS; i++)
        if (arrays[i].begin && address > arrays[i].begin - emulator::FORBIDDEN / 2 &&
            address < arrays[i].end + emulator::FORBIDDEN / 2)
            return i;
    return -1;
}

SILENT void look(const char *address, Access access) {
    bool shared = is_shared(address);
    int array = shared ? -1 : array_of(address);
    if (!shared && array < 0) return;
    long long offset = shared ? address - emulator::__start_shared_memory : address - arrays[array].begin;
    if (!shared && (address < arrays[array].begin || address >= arrays[array].end)) {
        note(OUTSIDE, array, offset / 4, (arrays[array].end - arrays[array].begin) / 4, access, access);
        return;
    }
    busy[access.thread] = true;
    Cell *cell = cell_of(address);
    if (!cell) return;
    if (shared && cell->block != access.block + 1)
        cell->block = access.block + 1, cell->written = false, cell->accesses = 0;
    bool unwritten = !cell->written && !(array >= 0 && arrays[array].given);
    if (shared && log_length < LOGGED)
        logged[log_length++] = {access.thread, offset / 4, access.writes, unwritten && !access.writes};
    if (unwritten && !access.writes) note(UNWRITTEN, array, offset / 4, 0, access, access);
    for (int i = 0; i < 3; i++) {
        const Access &before = cell->last[i];
        bool is_there = cell->accesses >> i & 1;
        if (is_there && (before.writes || access.writes) && !in_order(before, access))
            note(before.writes && access.writes ? WRITES_ONLY : RACE, array, offset / 4, 0, before, access);
    }
    if (access.atomic && !access.writes) return;  // the write that belongs to it comes at once
    int slot = 0;
    if (!access.writes) slot = cell->accesses & 2 && cell->last[1].thread != access.thread ? 2 : 1;
    cell->last[slot] = access;
    cell->accesses |= 1 << slot;
    cell->written |= access.writes;
}

SILENT void access(const void *address, unsigned long long size, bool writes, const void *code) {
    if (!emulator::current) return;
    long long thread = emulator::current - emulator::threads, place = (const char *)code - __ehdr_start;
    Progress &at = mine();
    Access it = {thread, this_block(), at.barriers, at.warp_barriers, atomic_line ? -atomic_line : place,
                 writes, atomic_line > 0};
    for (unsigned long long i = 0; i < size; i += 4) look((const char *)address + i, it);
}

// What the compiler calls. The names in quotes are the linker's.
#define ON_ACCESS(size)                                                                                  \
    SILENT void read##size(void *at) asm("__tsan_read" #size);                                           \
    SILENT void read##size(void *at) { access(at, size, false, __builtin_return_address(0)); }           \
    SILENT void write##size(void *at) asm("__tsan_write" #size);                                         \
    SILENT void write##size(void *at) { access(at, size, true, __builtin_return_address(0)); }
ON_ACCESS(1)
ON_ACCESS(2)
ON_ACCESS(4)
ON_ACCESS(8)
ON_ACCESS(16)
SILENT void read_range(void *at, unsigned long size) asm("__tsan_read_range");
SILENT void read_range(void *at, unsigned long size) {
    access(at, size, false, __builtin_return_address(0));
}
SILENT void write_range(void *at, unsigned long size) asm("__tsan_write_range");
SILENT void write_range(void *at, unsigned long size) {
    access(at, size, true, __builtin_return_address(0));
}
SILENT void changed_table(void *, void *) asm("__tsan_vptr_update");
SILENT void changed_table(void *, void *) {}
SILENT void begin() asm("__tsan_init");
SILENT void begin() {}

// A kernel that does not end is ended: by the alarm that watch_begin sets.
constexpr unsigned PATIENCE = 3;  // seconds
struct sigaction action_before;
extern "C" unsigned alarm(unsigned seconds);

SILENT void on_alarm(int) {
    if (emulator::current) emulator::fail("it does not end");
    alarm(1);  // between two kernels' turns
}

template <class F> auto atomic(int line, F operation) {
    atomic_line = line;
    atomics_used = true;
    auto result = operation();
    atomic_line = 0;
    return result;
}

}  // namespace watch

// Names array number `number` of a kernel's. given: it holds something before the launch.
SILENT void watch_array(int number, const void *array, long long bytes, bool given) {
    watch::arrays[number] = {(const char *)array, (const char *)array + bytes, given};
}

extern "C" SILENT __global__ void watch_begin() {
    memset(watch::cells, 0, sizeof watch::cells);
    memset(watch::arrays, 0, sizeof watch::arrays);
    memset(watch::progress, 0, sizeof watch::progress);
    memset(watch::happened, 0, sizeof watch::happened);
    memset(watch::busy, 0, sizeof watch::busy);
    watch::atomics_used = false, watch::atomic_line = 0, watch::log_length = 0;
    struct sigaction action = {};
    action.sa_handler = watch::on_alarm;
    sigaction(SIGALRM, &action, &watch::action_before);
    watch::alarm(watch::PATIENCE);
}

// The events, 16 numbers each (a row of zeros for a kind that did not happen), the log, and two counts: rows
// of the log, busy threads.
extern "C" SILENT __global__ void watch_end(long long *events, long long *log, long long *counts) {
    watch::alarm(0);
    sigaction(SIGALRM, &watch::action_before, nullptr);
    for (int kind = 0; kind < watch::KINDS; kind++) {
        const watch::Event &event = watch::events[kind];
        long long *row = events + 16 * kind;
        row[0] = watch::happened[kind], row[1] = event.array, row[2] = event.index, row[3] = event.size;
        int at = 4;
        for (const watch::Access *access : {&event.first, &event.second}) {
            row[at++] = access->thread, row[at++] = access->block, row[at++] = access->place;
            row[at++] = access->writes, row[at++] = access->atomic;
        }
    }
    memcpy(log, watch::logged, sizeof watch::logged);
    counts[0] = watch::log_length;
    for (bool is_busy : watch::busy) counts[1] += is_busy;
}

#undef __syncthreads
#define __syncthreads() (emulator::wait(emulator::AT_BLOCK_BARRIER, __LINE__), (void)watch::mine().barriers++)
#define __syncwarp(...) (__syncwarp(__VA_ARGS__), (void)watch::mine().warp_barriers++)
#define WATCHED(operation, ...) watch::atomic(__LINE__, [&] { return operation(__VA_ARGS__); })
#define atomicAdd(...) WATCHED(atomicAdd, __VA_ARGS__)
#define atomicSub(...) WATCHED(atomicSub, __VA_ARGS__)
#define atomicMax(...) WATCHED(atomicMax, __VA_ARGS__)
#define atomicMin(...) WATCHED(atomicMin, __VA_ARGS__)
#define atomicExch(...) WATCHED(atomicExch, __VA_ARGS__)
#define atomicCAS(...) WATCHED(atomicCAS, __VA_ARGS__)
#define atomicInc(...) WATCHED(atomicInc, __VA_ARGS__)
