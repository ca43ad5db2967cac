// Enough of CUDA to run kernels on the host: blocks one after the other, the threads of
// a block in turns from one __syncthreads to the next. Compiled in front of a kernel's
// source.

#include <math.h>
#include <string.h>
#include <ucontext.h>

#define ON_HOST
#define __global__
#define __device__
#define __shared__ static

struct Place {
  unsigned x, y, z;
};
static Place threadIdx, blockIdx;

namespace host {
const int MOST_THREADS = 256, STACK = 1 << 16;
static char stacks[MOST_THREADS][STACK];
static ucontext_t threads[MOST_THREADS], scheduler;
static bool ended[MOST_THREADS];
static void (*body)(void**);
static void** arguments;

static void run_thread() {
  body(arguments);
  ended[threadIdx.x] = true;
}

static void turn(int thread) {
  threadIdx.x = thread;
  swapcontext(&scheduler, &threads[thread]);
}

// Returns whether all threads came to the same barriers, as CUDA wants it.
static bool run_block(int n_threads) {
  for (int i = 0; i < n_threads; ++i) {
    ended[i] = false;
    getcontext(&threads[i]);
    threads[i].uc_stack.ss_sp = stacks[i];
    threads[i].uc_stack.ss_size = STACK;
    threads[i].uc_link = &scheduler;
    makecontext(&threads[i], run_thread, 0);
  }
  for (;;) {
    int n_ended = 0;
    for (int i = 0; i < n_threads; ++i) {
      turn(i);
      n_ended += ended[i];
    }
    if (n_ended == n_threads) return true;
    if (n_ended) return false;
  }
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

static bool launch_blocks(void (*body)(void**), const unsigned* grid,
                          unsigned n_threads, void** arguments) {
  host::body = body;
  host::arguments = arguments;
  for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
      if (!host::run_block(n_threads)) return false;
  return true;
}

struct Half;
static double to_double(Half value);
static void assign(Half& to, double value);
