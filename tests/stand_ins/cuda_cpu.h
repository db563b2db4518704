// Runs CUDA C kernels on the CPU, for emulate.py. One thread block runs after the other, and each CUDA thread
// is a fiber that runs alone until it reaches a barrier. The order in which threads, warps and blocks take
// turns is chosen per launch; a kernel whose result depends on it has a race. What would hang or go wrong
// silently on a GPU ends the launch with a message: a barrier that not all threads reach, an address outside
// the arguments, a misaligned vector access.

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <type_traits>
#include <ucontext.h>
#include <utility>

struct dim3 { unsigned x = 1, y = 1, z = 1; };
dim3 threadIdx, blockIdx, blockDim, gridDim;
constexpr int warpSize = 32;

namespace emulator {

constexpr int MAX_THREADS = 1024, STACK_BYTES = 1 << 17;
enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct alignas(16) Word { unsigned char bytes[16]; };  // what a lane hands over in a shuffle

struct Thread {
    jmp_buf resume;
    bool started;
    State state;
    dim3 index;
    int line;                 // of the barrier it waits at
    unsigned lanes;           // whom it waits for at a warp barrier
    int source;               // whose word it wants
    Word given, received;
    unsigned votes;           // the lanes whose word is not zero
};

Thread threads[MAX_THREADS], *current;
unsigned thread_count;
char *stacks, *dynamic_shared;
jmp_buf scheduler;
sigjmp_buf caller;
char report[400];
void (*invoke)(void **);
void **arguments;

[[noreturn]] void fail(const char *format, ...) {
    va_list values;
    va_start(values, format);
    int n = vsnprintf(report, sizeof report, format, values);
    va_end(values);
    if (current)
        snprintf(report + n, sizeof report - n, " (block %u,%u,%u thread %u,%u,%u)",
                 blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
    for (Thread &thread : threads) thread.started = false;  // their stacks stay in the middle of the kernel
    siglongjmp(caller, 1);
}

// ---- the order of turns: i -> (step * i + offset) mod n, a permutation if step and n have no common factor

enum { ASCENDING, DESCENDING };  // any other number is the seed of a random order
uint64_t order;

uint64_t random_number() {
    order ^= order << 13, order ^= order >> 7, order ^= order << 17;  // xorshift64
    return order;
}

uint64_t common_factor(uint64_t a, uint64_t b) { return b ? common_factor(b, a % b) : a; }

struct Turns {
    uint64_t n, step = 1, offset = 0;
    explicit Turns(uint64_t n) : n(n) {
        if (order == DESCENDING) step = offset = n - 1;
        if (order <= DESCENDING) return;
        do step = random_number() % n + 1; while (common_factor(step, n) > 1);
        offset = random_number() % n;
    }
    uint64_t operator[](uint64_t i) const { return (step * i + offset) % n; }
};

// ---- fibers

__attribute__((noinline)) void wait(State state, int line) {
    current->state = state;
    current->line = line;
    if (!_setjmp(current->resume)) _longjmp(scheduler, 1);
}

void fiber() {
    for (;;) {  // once per block
        invoke(arguments);
        wait(DONE, 0);
    }
}

void start(Thread &thread) {
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = stacks + (&thread - threads) * STACK_BYTES;
    context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&context, fiber, 0);
    thread.started = true;
    setcontext(&context);
}

__attribute__((noinline)) void run(Thread &thread) {  // until it waits
    current = &thread;
    threadIdx = thread.index;
    if (!_setjmp(scheduler)) {
        if (thread.started) _longjmp(thread.resume, 1);
        start(thread);
    }
    current = nullptr;
}

// ---- warps

struct Warp {
    Thread *lanes;
    unsigned size;

    bool run_ready() {
        bool any = false;
        Turns turns(size);
        for (unsigned i = 0; i < size; i++)
            if (lanes[turns[i]].state == READY) run(lanes[turns[i]]), any = true;
        return any;
    }

    bool waits_for(unsigned i, const Thread &other) const {
        const Thread &lane = lanes[i];
        return lane.state == AT_WARP_BARRIER && lane.lanes == other.lanes && lane.line == other.line;
    }

    void release(unsigned i) {  // the lanes that wait with lane i, if they are complete
        const Thread first = lanes[i];
        unsigned group = first.lanes & (size < 32 ? (1u << size) - 1 : ~0u), votes = 0;
        for (unsigned j = 0; j < size; j++) {
            if (!(group >> j & 1)) continue;
            if (!waits_for(j, first)) return;
            for (unsigned char byte : lanes[j].given.bytes) votes |= (byte != 0) << j;
        }
        for (unsigned j = 0; j < size; j++) {
            if (!(group >> j & 1)) continue;
            unsigned source = lanes[j].source;
            if (source < 32 && group >> source & 1) lanes[j].received = lanes[source].given;
            // No lane there: undefined on a GPU, NaN here.
            else memset(&lanes[j].received, 0xFF, sizeof(Word));
            lanes[j].votes = votes;
            lanes[j].state = READY;
        }
    }

    void run_until_blocked() {
        while (run_ready())
            for (unsigned i = 0; i < size; i++)
                if (lanes[i].state == AT_WARP_BARRIER) release(i);
    }
};

Word exchange(unsigned lanes, Word word, int source, int line) {
    unsigned lane = (current - threads) % 32;
    if (!(lanes >> lane & 1)) fail("line %d: lane %u is not in its own mask %#x", line, lane, lanes);
    current->lanes = lanes, current->given = word, current->source = source;
    wait(AT_WARP_BARRIER, line);
    return current->received;
}

unsigned vote(unsigned lanes, bool yes, int line) {
    exchange(lanes, Word{{yes}}, 0, line);
    return current->votes;
}

template <class T> T shuffle(unsigned lanes, T value, int source, int line) {
    static_assert(sizeof(T) <= sizeof(Word), "shuffles move at most 16 bytes here");
    Word word{};
    memcpy(&word, &value, sizeof value);
    word = exchange(lanes, word, source, line);
    memcpy(&value, &word, sizeof value);
    return value;
}

inline int lane() { return (current - threads) % 32; }
// The first lane of this lane's part of the warp.
inline int segment(int width) { return lane() & ~(width - 1); }
inline int within(int width, int source) { return source < segment(width) + width ? source : lane(); }

// ---- blocks

extern "C" char __start_shared_memory[], __stop_shared_memory[];  // the linker's names for the section's ends
__attribute__((section("shared_memory"), used)) char first_shared;

void describe(const Thread &thread, char *text, size_t size) {
    const char *states[] = {
        "runs", "waits at __syncthreads", "waits for lanes of its warp", "has left the kernel"};
    const dim3 &index = thread.index;
    int n = snprintf(text, size, "thread %u,%u,%u %s", index.x, index.y, index.z, states[thread.state]);
    if (thread.line) snprintf(text + n, size - n, " in line %d", thread.line);
}

void release_block() {
    for (unsigned i = 0; i < thread_count; i++) {
        const Thread &first = threads[0], &other = threads[i];
        bool same = other.state == first.state && other.line == first.line;
        if (same && other.state != AT_WARP_BARRIER) continue;
        char a[100], b[100] = ", ";
        describe(first, a, sizeof a), describe(other, b + 2, sizeof b - 2);
        fail("divergent barrier in block %u,%u,%u: %s%s",
             blockIdx.x, blockIdx.y, blockIdx.z, a, &first == &other ? "" : b);
    }
    for (unsigned i = 0; i < thread_count; i++) threads[i].state = READY;
}

void run_block(size_t dynamic_bytes) {
    // NaN until something is written there.
    memset(__start_shared_memory, 0xFF, __stop_shared_memory - __start_shared_memory);
    memset(dynamic_shared, 0xFF, dynamic_bytes);
    for (unsigned i = 0; i < thread_count; i++) {
        threads[i].state = READY;
        threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    }
    for (unsigned warps = (thread_count + 31) / 32;;) {
        Turns turns(warps);
        for (unsigned i = 0; i < warps; i++) {
            unsigned first = turns[i] * 32, size = thread_count - first;
            Warp{threads + first, size < 32 ? size : 32}.run_until_blocked();
        }
        bool done = true;
        for (unsigned i = 0; i < thread_count; i++) done &= threads[i].state == DONE;
        if (done) return;
        release_block();
    }
}

// ---- memory between forbidden addresses

constexpr size_t PAGE = 4096, FORBIDDEN = 1 << 28;  // addresses, not memory

size_t whole_pages(size_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

char *map(size_t bytes, int protection) {
    return (char *)mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

extern "C" char *emulator_map(size_t bytes) {  // the end of as many pages as `bytes` need, all bytes 0xFF
    size_t inner = whole_pages(bytes);
    char *start = map(inner + 2 * FORBIDDEN, PROT_NONE);
    mprotect(start + FORBIDDEN, inner, PROT_READ | PROT_WRITE);
    memset(start + FORBIDDEN, 0xFF, inner);
    return start + FORBIDDEN + inner;
}

extern "C" void emulator_unmap(char *end, size_t bytes) {
    munmap(end - whole_pages(bytes) - FORBIDDEN, whole_pages(bytes) + 2 * FORBIDDEN);
}

void on_signal(int, siginfo_t *info, void *) {
    fail("access outside the arrays, at address %p", info->si_addr);
}

// ---- launching

// The letter of NumPy's dtype for an argument; for a pointer P (p: to const) and the letter of its target.
template <class T> constexpr char letter() {
    if constexpr (std::is_same_v<T, float>) return 'f';
    else if constexpr (std::is_same_v<T, double>) return 'd';
    else if constexpr (std::is_same_v<T, bool>) return '?';
    else if constexpr (std::is_integral_v<T> && sizeof(T) == 1) return std::is_signed_v<T> ? 'b' : 'B';
    else if constexpr (std::is_integral_v<T> && sizeof(T) == 2) return std::is_signed_v<T> ? 'h' : 'H';
    else if constexpr (std::is_integral_v<T> && sizeof(T) == 4) return std::is_signed_v<T> ? 'i' : 'I';
    else if constexpr (std::is_integral_v<T> && sizeof(T) == 8) return std::is_signed_v<T> ? 'q' : 'Q';
    else return 'V';
}

template <class T> void append_letters(char *&text) {
    if constexpr (std::is_pointer_v<T>) {
        using Target = std::remove_pointer_t<T>;
        *text++ = std::is_const_v<Target> ? 'p' : 'P';
        *text++ = letter<std::remove_cv_t<Target>>();
    } else {
        *text++ = 'S';
        *text++ = letter<std::remove_cv_t<T>>();
    }
}

template <class... A> const char *signature(void (*)(A...)) {
    static char text[2 * sizeof...(A) + 1], *end = text;
    if (end == text) (append_letters<A>(end), ...);
    return text;
}

template <class... A, size_t... I> void call(void (*kernel)(A...), void **args, std::index_sequence<I...>) {
    kernel(*(std::remove_cv_t<A> *)args[I]...);
}
template <class... A> void call(void (*kernel)(A...), void **args) {
    call(kernel, args, std::index_sequence_for<A...>());
}

void run_grid(size_t dynamic_bytes) {
    uint64_t blocks = (uint64_t)gridDim.x * gridDim.y * gridDim.z;
    Turns turns(blocks);
    for (uint64_t i = 0; i < blocks; i++) {
        unsigned b = turns[i];
        blockIdx = {b % gridDim.x, b / gridDim.x % gridDim.y, b / gridDim.x / gridDim.y};
        run_block(dynamic_bytes);
    }
}

// Returns an empty text, or what went wrong. shape: grid x, y, z, block x, y, z.
const char *launch(void (*kernel)(void **), void **args, const unsigned *shape, size_t dynamic_bytes,
                   uint64_t wanted_order) {
    if (!stacks) stacks = map((size_t)MAX_THREADS * STACK_BYTES, PROT_READ | PROT_WRITE);
    invoke = kernel, arguments = args, current = nullptr;
    order = wanted_order <= DESCENDING ? wanted_order : wanted_order * 0x9E3779B97F4A7C15;
    gridDim = {shape[0], shape[1], shape[2]}, blockDim = {shape[3], shape[4], shape[5]};
    thread_count = shape[3] * shape[4] * shape[5];
    char *end = emulator_map(dynamic_bytes);
    dynamic_shared = end - (dynamic_bytes + 15) / 16 * 16;
    struct sigaction action = {}, before[2];
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &before[0]), sigaction(SIGBUS, &action, &before[1]);
    report[0] = 0;
    if (!sigsetjmp(caller, 1)) run_grid(dynamic_bytes);
    sigaction(SIGSEGV, &before[0], nullptr), sigaction(SIGBUS, &before[1], nullptr);
    emulator_unmap(end, dynamic_bytes);
    return report;
}

}  // namespace emulator

// What `g++ -fsanitize` calls when a check fails; its first argument begins with the place in the source.
struct SourcePlace { const char *file; unsigned line, column; };
#define CHECK(name, what)                                                  \
    extern "C" void __ubsan_handle_##name(SourcePlace *place) {            \
        emulator::fail("line %u: " what, place->line);                     \
    }
CHECK(out_of_bounds, "index outside the array")
CHECK(type_mismatch_v1, "misaligned or null address")
CHECK(shift_out_of_bounds, "shift by more than the width")
CHECK(add_overflow, "integer overflow")
CHECK(sub_overflow, "integer overflow")
CHECK(mul_overflow, "integer overflow")
CHECK(negate_overflow, "integer overflow")
CHECK(divrem_overflow, "division by zero")

#define EMULATED(kernel)                                                                                \
    extern "C" const char *emulator_signature_##kernel() { return emulator::signature(kernel); }       \
    extern "C" const char *emulator_launch_##kernel(void **args, const unsigned *shape, size_t shared, \
                                                    uint64_t order) {                                  \
        auto invoke = [](void **values) { emulator::call(kernel, values); };                           \
        return emulator::launch(invoke, args, shape, shared, order);                                   \
    }

// ---- CUDA's words

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __constant__ static
#define __shared__ static __attribute__((section("shared_memory")))
#define assert(condition) \
    ((condition) ? (void)0 : emulator::fail("line %d: assert(%s)", __LINE__, #condition))

#define __syncthreads() emulator::wait(emulator::AT_BLOCK_BARRIER, __LINE__)
#define WARP_LINE , int line = __builtin_LINE()
inline void __syncwarp(unsigned lanes = ~0u WARP_LINE) { emulator::vote(lanes, false, line); }
inline unsigned __ballot_sync(unsigned lanes, int yes WARP_LINE) { return emulator::vote(lanes, yes, line); }
inline int __any_sync(unsigned lanes, int yes WARP_LINE) { return emulator::vote(lanes, yes, line) != 0; }
inline int __all_sync(unsigned lanes, int yes WARP_LINE) { return emulator::vote(lanes, !yes, line) == 0; }
template <class T> T __shfl_sync(unsigned lanes, T value, int source, int width = 32 WARP_LINE) {
    return emulator::shuffle(lanes, value, emulator::segment(width) + (source & (width - 1)), line);
}
template <class T> T __shfl_xor_sync(unsigned lanes, T value, int mask, int width = 32 WARP_LINE) {
    return emulator::shuffle(lanes, value, emulator::within(width, emulator::lane() ^ mask), line);
}
template <class T> T __shfl_down_sync(unsigned lanes, T value, unsigned distance, int width = 32 WARP_LINE) {
    return emulator::shuffle(lanes, value, emulator::within(width, emulator::lane() + distance), line);
}
template <class T> T __shfl_up_sync(unsigned lanes, T value, unsigned distance, int width = 32 WARP_LINE) {
    int source = emulator::lane() - (int)distance;
    if (source < emulator::segment(width)) source = emulator::lane();
    return emulator::shuffle(lanes, value, source, line);
}
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T, class F> T atomically(T *address, F change) {  // a fiber is never interrupted
    T old = *address;
    *address = change(old);
    return old;
}
template <class T> T atomicAdd(T *address, std::common_type_t<T> v) {
    return atomically(address, [=](T x) { return x + v; });
}
template <class T> T atomicSub(T *address, std::common_type_t<T> v) {
    return atomically(address, [=](T x) { return x - v; });
}
template <class T> T atomicMax(T *address, std::common_type_t<T> v) {
    return atomically(address, [=](T x) { return x > v ? x : v; });
}
template <class T> T atomicMin(T *address, std::common_type_t<T> v) {
    return atomically(address, [=](T x) { return x < v ? x : v; });
}
template <class T> T atomicExch(T *address, std::common_type_t<T> v) {
    return atomically(address, [=](T) { return v; });
}
template <class T> T atomicCAS(T *address, std::common_type_t<T> expected, std::common_type_t<T> v) {
    return atomically(address, [=](T x) { return x == expected ? v : x; });
}
inline unsigned atomicInc(unsigned *address, unsigned last) {
    return atomically(address, [=](unsigned x) { return x >= last ? 0 : x + 1; });
}

#define VECTOR_TYPES(T, name)                                                                       \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                              \
    struct name##3 { T x, y, z; };                                                                  \
    struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; };              \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                      \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                              \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTOR_TYPES(float, float)
VECTOR_TYPES(double, double)
VECTOR_TYPES(int, int)
VECTOR_TYPES(unsigned, uint)
VECTOR_TYPES(unsigned char, uchar)
VECTOR_TYPES(unsigned short, ushort)
VECTOR_TYPES(long long, longlong)
VECTOR_TYPES(unsigned long long, ulonglong)

template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
template <class T> T __ldg(const T *address) { return *address; }
template <class T> T __ldcg(const T *address) { return *address; }
template <class T> T __ldcs(const T *address) { return *address; }
template <class T> void __stcs(T *address, T value) { *address = value; }
template <class T> void __stcg(T *address, T value) { *address = value; }

#define __expf(x) expf(x)
#define __exp10f(x) powf(10.0f, x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1 : 0; }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
inline float sinpif(float x) { return sin(M_PI * x); }
inline float cospif(float x) { return cos(M_PI * x); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }

template <class To, class From> To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof to);
    return to;
}
inline float __int_as_float(int x) { return same_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return same_bits<float>(x); }
inline int __float_as_int(float x) { return same_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return same_bits<unsigned>(x); }
inline float __int2float_rn(int x) { return x; }
inline float __uint2float_rn(unsigned x) { return x; }
inline int __float2int_rn(float x) { return lrintf(x); }
inline int __float2int_rz(float x) { return x; }
inline int __float2int_rd(float x) { return floorf(x); }
inline unsigned __float2uint_rn(float x) { return lrintf(x); }
inline unsigned __float2uint_rz(float x) { return x; }

inline int __mulhi(int a, int b) { return (long long)a * b >> 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n) {
    return ((unsigned long long)high << 32 | low) << (n & 31) >> 32;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
