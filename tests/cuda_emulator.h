// CUDA C++ on the CPU, to test kernels without a GPU. Every thread of a block is a fiber, which runs until it reaches
// a barrier or a shuffle and then lets the next one run. Blocks run one after another.
//
// What it finds beyond wrong results: reads of shared memory that was not written (it is NaN at first), writes behind
// its end, barriers that only some threads of a warp or block reach, and, by running the threads of a block forward
// and in reversed order, results that depend on the order because a barrier is missing.

#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __shared__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)

struct Size {
    unsigned x, y, z;
};
Size gridDim, blockDim, blockIdx, threadIdx;  // threadIdx is that of the fiber that runs

constexpr size_t SHARED_BYTES = 48 * 1024, GUARD_BYTES = 1024;
alignas(16) float shared[(SHARED_BYTES + GUARD_BYTES) / sizeof(float)];

namespace emulator {

enum State { RUNS, AT_WARP_BARRIER, AT_BLOCK_BARRIER, DONE };

struct Fiber {
    State state;
    Size index;
    bool begun;
    jmp_buf place;
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    uint64_t given;  // to the other lanes of the warp, in a shuffle
};

constexpr size_t STACK_BYTES = 64 * 1024;
constexpr unsigned WARP_SIZE = 32;
std::vector<Fiber> fibers;
unsigned running, threads;
jmp_buf scheduler;
void (*run_thread)(void*);
void* thread_data;

// Run the thread that has its turn again and again, once for each block.
void fiber_main() {
    for (;;) {
        run_thread(thread_data);
        fibers[running].state = DONE;
        if (!_setjmp(fibers[running].place)) _longjmp(scheduler, 1);
    }
}

__attribute__((noinline)) void wait(State state) {
    fibers[running].state = state;
    if (!_setjmp(fibers[running].place)) _longjmp(scheduler, 1);
}

__attribute__((noinline)) void resume(unsigned thread) {
    Fiber& fiber = fibers[thread];
    running = thread;
    threadIdx = fiber.index;
    fiber.state = RUNS;
    if (_setjmp(scheduler)) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    setcontext(&fiber.context);
}

void make_fibers(unsigned count) {
    while (fibers.size() < count) fibers.emplace_back();
    for (Fiber& fiber : fibers) {
        if (fiber.stack) continue;
        fiber.stack.reset(new char[STACK_BYTES]);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK_BYTES;
        fiber.context.uc_link = nullptr;
        fiber.begun = false;
        makecontext(&fiber.context, fiber_main, 0);
    }
}

// Let go those who wait together in threads [first, last) once all have come that have not ended.
bool release(State barrier, unsigned first, unsigned last) {
    bool any = false;
    for (unsigned t = first; t < last; t++) {
        if (fibers[t].state != barrier && fibers[t].state != DONE) return false;
        any |= fibers[t].state == barrier;
    }
    for (unsigned t = first; t < last; t++) {
        if (fibers[t].state == barrier) fibers[t].state = RUNS;
    }
    return any;
}

// nullptr, or what went wrong.
const char* run_block(bool reversed) {
    for (unsigned t = 0; t < threads; t++) fibers[t].state = RUNS;
    for (;;) {
        for (unsigned i = 0; i < threads; i++) {
            unsigned t = reversed ? threads - 1 - i : i;
            if (fibers[t].state == RUNS) resume(t);
        }
        bool released = false, done = true;
        for (unsigned t = 0; t < threads; t += WARP_SIZE) {
            released |= release(AT_WARP_BARRIER, t, std::min(t + WARP_SIZE, threads));
        }
        released |= release(AT_BLOCK_BARRIER, 0, threads);
        for (unsigned t = 0; t < threads; t++) done &= fibers[t].state == DONE;
        if (done) return nullptr;
        if (!released) return "some threads wait at a barrier that the others do not reach";
    }
}

template <class... Arguments, size_t... I>
void call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<Arguments>*>(arguments[I])...);
}

// As cuLaunchKernel: arguments are pointers to the kernel's own.
template <class... Arguments>
const char* launch(const unsigned* grid, const unsigned* block, size_t shared_bytes, int reversed,
                   void (*kernel)(Arguments...), void** arguments) {
    auto thread = [=] { call(kernel, arguments, std::index_sequence_for<Arguments...>{}); };
    run_thread = [](void* data) { (*static_cast<decltype(thread)*>(data))(); };
    thread_data = &thread;

    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    threads = block[0] * block[1] * block[2];
    if (threads > 1024) return "a block has at most 1024 threads";
    if (shared_bytes > SHARED_BYTES) return "a block has at most 48 KB of shared memory";
    make_fibers(threads);
    for (unsigned t = 0; t < threads; t++) {
        fibers[t].index = {t % block[0], t / block[0] % block[1], t / block[0] / block[1]};
    }
    for (unsigned z = 0; z < grid[2]; z++) {
        for (unsigned y = 0; y < grid[1]; y++) {
            for (unsigned x = 0; x < grid[0]; x++) {
                blockIdx = {x, y, z};
                memset(shared, 0xff, sizeof shared);  // NaN
                if (const char* trouble = run_block(reversed)) {
                    fibers.clear();  // which stand in the middle of the kernel
                    return trouble;
                }
                const char *bytes = reinterpret_cast<char*>(shared), *end = bytes + sizeof shared;
                if (std::any_of(bytes + shared_bytes, end, [](char byte) { return byte != '\xff'; })) {
                    return "the kernel wrote behind the end of its shared memory";
                }
            }
        }
    }
    return nullptr;
}

template <class T>
T exchange(T value, unsigned lane) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    unsigned first = running / WARP_SIZE * WARP_SIZE;
    memcpy(&fibers[running].given, &value, sizeof value);
    wait(AT_WARP_BARRIER);
    T result;
    memcpy(&result, &fibers[first + lane].given, sizeof result);
    wait(AT_WARP_BARRIER);  // before the next exchange overwrites it
    return result;
}

inline unsigned lane() { return running % WARP_SIZE; }

}  // namespace emulator

#define EMULATE(kernel)                                                                                             \
    extern "C" const char* emulate_##kernel(const unsigned* grid, const unsigned* block, size_t shared_bytes,      \
                                            int reversed, void** arguments) {                                       \
        return emulator::launch(grid, block, shared_bytes, reversed, kernel, arguments);                            \
    }

inline void __syncthreads() { emulator::wait(emulator::AT_BLOCK_BARRIER); }
inline void __syncwarp(unsigned = ~0u) { emulator::wait(emulator::AT_WARP_BARRIER); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    return emulator::exchange(value, emulator::lane() ^ mask);
}
template <class T>
T __shfl_sync(unsigned, T value, int lane) {
    return emulator::exchange(value, lane);
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (uint64_t)a * b >> 32; }
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
using std::max;
using std::min;
