// Enough of CUDA to run kernels on the host: a few blocks at a time, the threads of a
// block in turns from one __syncthreads to the next, each time in another order, so that
// a barrier that is missing shows. Compiled in front of a kernel's source.

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define ON_HOST
#define __global__
#define __launch_bounds__(threads)
#define __device__
#define __shared__ static thread_local

struct Place {
  unsigned x, y, z;
};
static thread_local Place threadIdx, blockIdx;
static Place gridDim;

namespace host {
const int STACK = 1 << 16, BLOCKS_AT_A_TIME = 4;
static thread_local char* stacks;
static thread_local ucontext_t threads[THREADS], scheduler;
static thread_local bool ended[THREADS];
static void (*body)(void**);
static void** arguments;
static unsigned next_block;
static bool all_well;

// Steele, Lea and Flood (2014): SplitMix.
static unsigned random_number() {
  static unsigned long long state;
  unsigned long long z =
      __atomic_add_fetch(&state, 0x9e3779b97f4a7c15ull, __ATOMIC_RELAXED);
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z >> 32;
}

static void run_thread() {
  body(arguments);
  ended[threadIdx.x] = true;
}

static void turn(int thread) {
  threadIdx.x = thread;
  swapcontext(&scheduler, &threads[thread]);
}

// Returns whether all threads came to the same barriers, as CUDA wants it.
static bool run_block() {
  for (unsigned i = 0; i < THREADS; ++i) {
    ended[i] = false;
    getcontext(&threads[i]);
    threads[i].uc_stack.ss_sp = stacks + i * STACK;
    threads[i].uc_stack.ss_size = STACK;
    threads[i].uc_link = &scheduler;
    makecontext(&threads[i], run_thread, 0);
  }
  for (;;) {
    unsigned n_ended = 0;
    // THREADS being a power of two, each comes up once.
    const unsigned first = random_number(), step = 2 * random_number() + 1;
    for (unsigned i = 0; i < THREADS; ++i) {
      const unsigned thread = (first + i * step) % THREADS;
      turn(thread);
      n_ended += ended[thread];
    }
    if (n_ended == THREADS) return true;
    if (n_ended) return false;
  }
}

static void* run_blocks(void*) {
  stacks = (char*)malloc(THREADS * STACK);
  for (;;) {
    const unsigned block = __atomic_fetch_add(&next_block, 1, __ATOMIC_RELAXED);
    if (block >= gridDim.x * gridDim.y * gridDim.z) break;
    blockIdx.x = block % gridDim.x;
    blockIdx.y = block / gridDim.x % gridDim.y;
    blockIdx.z = block / gridDim.x / gridDim.y;
    if (!run_block()) __atomic_store_n(&all_well, false, __ATOMIC_RELAXED);
  }
  free(stacks);
  return 0;
}

template <int... I>
struct Indices {};
template <int N, int... I>
struct UpTo : UpTo<N - 1, N - 1, I...> {};
template <int... I>
struct UpTo<0, I...> {
  typedef Indices<I...> Of;
};

template <class... A, int... I>
static void call(void (*kernel)(A...), void** values, Indices<I...>) {
  kernel(*(A*)values[I]...);
}

// As cuLaunchKernel passes them: by a pointer to each value.
template <class... A>
static void call(void (*kernel)(A...), void** values) {
  call(kernel, values, typename UpTo<sizeof...(A)>::Of());
}
}  // namespace host

static void __syncthreads() {
  swapcontext(&host::threads[threadIdx.x], &host::scheduler);
}

static void __threadfence() { __sync_synchronize(); }

static unsigned atomicAdd(unsigned* at, unsigned value) {
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

static bool launch_blocks(void (*body)(void**), const unsigned* grid,
                          void** arguments) {
  host::body = body;
  host::arguments = arguments;
  host::next_block = 0;
  host::all_well = true;
  gridDim.x = grid[0];
  gridDim.y = grid[1];
  gridDim.z = grid[2];
  const unsigned blocks = grid[0] * grid[1] * grid[2];
  unsigned helpers = 0;
  pthread_t others[host::BLOCKS_AT_A_TIME];
  while (helpers + 1 < host::BLOCKS_AT_A_TIME && helpers + 1 < blocks &&
         !pthread_create(&others[helpers], 0, host::run_blocks, 0))
    ++helpers;
  host::run_blocks(0);
  for (unsigned i = 0; i < helpers; ++i) pthread_join(others[i], 0);
  return host::all_well;
}

struct Half;
static double to_double(Half value);
static void assign(Half& to, double value);
