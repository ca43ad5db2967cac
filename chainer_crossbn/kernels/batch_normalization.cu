// Batch normalization of arrays of shape (n, c, s), with arithmetic in double.
//
// To be defined: ELEMENT, the type of the images, and PARAMETER, that of gamma, beta
// and the running statistics, each float, double or Half; WIDE, how many elements a
// thread loads at a time where they lie at addresses that permit it. ReLU may follow:
// the backward pass, which is given beta then, computes its input once more.
//
// An array is read in one of two ways. By planes: a block has one channel, and its
// threads have neighbouring positions of it. By columns, where there are few positions
// (one, if channels are last in memory): the array is a matrix of n rows and c * s
// columns, and a thread has WIDTH neighbouring columns of it. Blocks are THREADS wide,
// `lanes` of them along a row, and the rows and the positions are shared among
// row_parts * column_parts blocks. What a block has found of its part of a sum is put
// together with that of the others by a second kernel, always in the same order.

typedef long long Size;

const int THREADS = 256;
const int CHUNK = 4;  // loads of a thread that are under way together

struct Half {
  unsigned short bits;
};

#ifndef ON_HOST
__device__ inline double to_double(Half value) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
}

__device__ inline void assign(Half& to, double value) {
  asm("cvt.rn.f16.f64 %0, %1;" : "=h"(to.bits) : "d"(value));
}
#endif

__device__ inline double to_double(float value) { return value; }
__device__ inline double to_double(double value) { return value; }
__device__ inline void assign(float& to, double value) { to = (float)value; }
__device__ inline void assign(double& to, double value) { to = value; }

template <int WIDTH>
struct alignas(WIDTH * sizeof(ELEMENT)) Vector {
  ELEMENT at[WIDTH];
};

// An array, and how its rows and positions are shared out.
struct Array {
  Size n, c, s;
  Size lanes, row_parts, column_parts;
};

// The vectors of a thread, by planes; places count vectors from the array's start.
template <int WIDTH>
struct Walk {
  Size row, rows, row_step, at, first, step, length, channel, channels;

  __device__ explicit Walk(const Array& a) {
    channel = blockIdx.x;
    channels = a.c;
    length = a.s / WIDTH;
    const Size rows_of_block = THREADS / a.lanes;
    row = blockIdx.y % a.row_parts * rows_of_block + threadIdx.x / a.lanes;
    row_step = a.row_parts * rows_of_block;
    first = blockIdx.y / a.row_parts * a.lanes + threadIdx.x % a.lanes;
    step = a.column_parts * a.lanes;
    at = first;
    rows = first < length ? a.n : 0;
  }

  __device__ bool more() const { return row < rows; }

  __device__ Size next() {
    const Size place = (row * channels + channel) * length + at;
    at += step;
    if (at >= length) {
      at = first;
      row += row_step;
    }
    return place;
  }
};

// The columns of a thread, and its rows.
template <int WIDTH>
struct Columns {
  Size column, columns, row, rows, step;

  __device__ explicit Columns(const Array& a) {
    columns = a.c * a.s;
    column = (blockIdx.x * a.lanes + threadIdx.x % a.lanes) * WIDTH;
    const Size rows_of_block = THREADS / a.lanes;
    row = blockIdx.y * rows_of_block + threadIdx.x / a.lanes;
    step = a.row_parts * rows_of_block;
    rows = column < columns ? a.n : 0;
  }

  __device__ bool more() const { return row < rows; }

  __device__ Size next() {
    const Size place = (row * columns + column) / WIDTH;
    row += step;
    return place;
  }
};

// Count, mean and the sum of squared deviations: Chan, Golub and LeVeque (1979).
struct Moments {
  static const bool OF_PAIRS = false;
  double count, mean, m2;

  __device__ void merge(const Moments& other) {
    if (other.count == 0) return;
    if (count == 0) {
      *this = other;
      return;
    }
    const double total = count + other.count;
    const double share = other.count / total;
    const double d = other.mean - mean;
    mean += d * share;
    m2 += other.m2 + d * d * (count * share);
    count = total;
  }

  // Takes in the first `used` of the values.
  template <int N>
  __device__ void add(const double (&x)[N], const double (&)[N], int used, double) {
    double sum = 0;
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (i < used) sum += x[i];
    Moments chunk = {(double)used, sum / used, 0};
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (i < used) chunk.m2 += (x[i] - chunk.mean) * (x[i] - chunk.mean);
    merge(chunk);
  }
};

// Sums of gy and of gy * (x - mean).
struct Sums {
  static const bool OF_PAIRS = true;
  double gy, gy_d;

  __device__ void merge(const Sums& other) {
    gy += other.gy;
    gy_d += other.gy_d;
  }

  template <int N>
  __device__ void add(const double (&x)[N], const double (&g)[N], int used,
                      double mean) {
#pragma unroll
    for (int i = 0; i < N; ++i)
      if (i < used) {
        gy += g[i];
        gy_d += g[i] * (x[i] - mean);
      }
  }
};

// What ReLU lets pass of the gradient of its output; all, where there is none.
struct Pass {
  double mean, scale, shift;
  bool all;

  __device__ double operator()(double x, double gy) const {
    return all || (x - mean) * scale + shift > 0 ? gy : 0;
  }
};

struct Passes {
  const double *mean, *inv_std;
  const PARAMETER *gamma, *beta;  // null where there is no ReLU

  __device__ Pass of(Size channel) const {
    if (!beta) return {0, 0, 0, true};
    const double scale = to_double(gamma[channel]) * inv_std[channel];
    return {mean[channel], scale, to_double(beta[channel]), false};
  }
};

// Merges what the threads of a block have, down to the first `left` of them.
template <class State>
__device__ State merged(const State& mine, int left) {
  __shared__ State states[THREADS];
  const int thread = threadIdx.x;
  states[thread] = mine;
  __syncthreads();
  for (int half = THREADS / 2; half >= left; half /= 2) {
    if (thread < half) states[thread].merge(states[thread + half]);
    __syncthreads();
  }
  const State result = states[thread];
  __syncthreads();  // as the next call writes to them
  return result;
}

// Loads up to CHUNK vectors; returns how many. The others are zeros.
template <bool PAIRS, int WIDTH, class Places>
__device__ int load(Places& places, const ELEMENT* x, const ELEMENT* gy,
                    Vector<WIDTH> (&vx)[CHUNK], Vector<WIDTH> (&vgy)[CHUNK]) {
  int used = 0;
#pragma unroll
  for (int i = 0; i < CHUNK; ++i)
    if (places.more()) {
      const Size place = places.next();
      vx[i] = ((const Vector<WIDTH>*)x)[place];
      if (PAIRS) vgy[i] = ((const Vector<WIDTH>*)gy)[place];
      used = i + 1;
    }
  return used;
}

template <class State, int WIDTH>
__device__ void reduce_planes(Array a, const ELEMENT* x, const ELEMENT* gy,
                              const Passes& passes, State* parts) {
  Walk<WIDTH> places(a);
  const double m = State::OF_PAIRS ? passes.mean[blockIdx.x] : 0;
  const Pass pass = passes.of(blockIdx.x);
  State state = {};
  while (places.more()) {
    Vector<WIDTH> vx[CHUNK] = {}, vgy[CHUNK] = {};
    const int used = load<State::OF_PAIRS>(places, x, gy, vx, vgy);
    double dx[CHUNK * WIDTH], dgy[CHUNK * WIDTH];
#pragma unroll
    for (int i = 0; i < CHUNK * WIDTH; ++i) {
      dx[i] = to_double(vx[i / WIDTH].at[i % WIDTH]);
      dgy[i] = pass(dx[i], to_double(vgy[i / WIDTH].at[i % WIDTH]));
    }
    state.add(dx, dgy, used * WIDTH, m);
  }
  state = merged(state, 1);
  if (threadIdx.x == 0) parts[blockIdx.y * a.c + blockIdx.x] = state;
}

template <class State, int WIDTH>
__device__ void reduce_columns(Array a, const ELEMENT* x, const ELEMENT* gy,
                               const Passes& passes, State* parts) {
  Columns<WIDTH> places(a);
  const Size columns = places.columns, column = places.column;
  double m[WIDTH];
  State states[WIDTH];
  Pass pass[WIDTH];
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) {
    const Size channel = column < columns ? (column + w) / a.s : 0;
    states[w] = State();
    m[w] = State::OF_PAIRS ? passes.mean[channel] : 0;
    pass[w] = passes.of(channel);
  }
  while (places.more()) {
    Vector<WIDTH> vx[CHUNK] = {}, vgy[CHUNK] = {};
    const int used = load<State::OF_PAIRS>(places, x, gy, vx, vgy);
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) {
      double dx[CHUNK], dgy[CHUNK];
#pragma unroll
      for (int i = 0; i < CHUNK; ++i) {
        dx[i] = to_double(vx[i].at[w]);
        dgy[i] = pass[w](dx[i], to_double(vgy[i].at[w]));
      }
      states[w].add(dx, dgy, used, m[w]);
    }
  }
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) {
    const State state = merged(states[w], a.lanes);
    if (threadIdx.x < a.lanes && column < columns)
      parts[blockIdx.y * columns + column + w] = state;
  }
}

// Merges all parts of a channel, which has `columns` neighbouring columns; a block each.
template <class State>
__device__ State all_parts(const State* parts, Size n_parts, Size c, Size columns) {
  State state = {};
  for (Size i = threadIdx.x; i < n_parts * columns; i += THREADS)
    state.merge(parts[(i / columns * c + blockIdx.x) * columns + i % columns]);
  return merged(state, 1);
}

// y = (x - mean) * scale + beta
struct Normalization {
  static const bool OF_PAIRS = false;
  double mean, scale, shift;
  bool relu;

  __device__ double operator()(double x, double) const {
    const double y = (x - mean) * scale + shift;
    return relu && y <= 0 ? 0 : y;  // a NaN stays
  }
};

// gx = gamma * inv_std * (gy - mean of gy - x_hat * mean of gy * x_hat)
struct Gradient {
  static const bool OF_PAIRS = true;
  double mean, slope, scale, mean_gy;
  Pass pass;

  __device__ double operator()(double x, double gy) const {
    return (pass(x, gy) - mean_gy - (x - mean) * slope) * scale;
  }
};

struct Normalizations {
  typedef Normalization Of;
  const double *mean, *inv_std;
  const PARAMETER *gamma, *beta;
  bool relu;

  __device__ Of of(Size channel) const {
    const double scale = to_double(gamma[channel]) * inv_std[channel];
    return {mean[channel], scale, to_double(beta[channel]), relu};
  }
};

struct Gradients {
  typedef Gradient Of;
  const double *mean, *inv_std;
  const PARAMETER *gamma, *beta;
  const double* total;  // over all ranks: sums of gy, then of gy * x_hat
  double count;
  Size c;

  __device__ Of of(Size channel) const {
    const double of_x_hat = total[c + channel] / count, std = inv_std[channel];
    const double scale = to_double(gamma[channel]) * std;
    const Passes passes = {mean, inv_std, gamma, beta};
    return {mean[channel], std * of_x_hat, scale, total[channel] / count,
            passes.of(channel)};
  }
};

template <class Maps, int WIDTH>
__device__ void map_planes(Array a, const ELEMENT* x, const ELEMENT* gy, ELEMENT* out,
                           const Maps& maps) {
  const typename Maps::Of map = maps.of(blockIdx.x);
  Walk<WIDTH> places(a);
  while (places.more()) {
    Walk<WIDTH> outputs = places;
    Vector<WIDTH> vx[CHUNK] = {}, vgy[CHUNK] = {};
    const int used = load<Maps::Of::OF_PAIRS>(places, x, gy, vx, vgy);
#pragma unroll
    for (int i = 0; i < CHUNK; ++i)
      if (i < used) {
        Vector<WIDTH> result;
#pragma unroll
        for (int w = 0; w < WIDTH; ++w)
          assign(result.at[w], map(to_double(vx[i].at[w]), to_double(vgy[i].at[w])));
        ((Vector<WIDTH>*)out)[outputs.next()] = result;
      }
  }
}

template <class Maps, int WIDTH>
__device__ void map_columns(Array a, const ELEMENT* x, const ELEMENT* gy, ELEMENT* out,
                            const Maps& maps) {
  Columns<WIDTH> places(a);
  if (!places.more()) return;
  typename Maps::Of map[WIDTH];
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) map[w] = maps.of((places.column + w) / a.s);
  while (places.more()) {
    Columns<WIDTH> outputs = places;
    Vector<WIDTH> vx[CHUNK] = {}, vgy[CHUNK] = {};
    const int used = load<Maps::Of::OF_PAIRS>(places, x, gy, vx, vgy);
#pragma unroll
    for (int i = 0; i < CHUNK; ++i)
      if (i < used) {
        Vector<WIDTH> result;
#pragma unroll
        for (int w = 0; w < WIDTH; ++w)
          assign(result.at[w],
                 map[w](to_double(vx[i].at[w]), to_double(vgy[i].at[w])));
        ((Vector<WIDTH>*)out)[outputs.next()] = result;
      }
  }
}

#define ARRAY Size n, Size c, Size s, Size lanes, Size row_parts, Size column_parts
#define THE_ARRAY {n, c, s, lanes, row_parts, column_parts}

// Each in four ways: by planes and by columns, by single elements and by wide vectors.
#define IN_EACH_WAY(KERNEL) \
  KERNEL(planes, 1, planes) \
  KERNEL(planes, WIDE, wide_planes) KERNEL(columns, 1, columns) \
  KERNEL(columns, WIDE, wide_columns)

#define MOMENTS(WAY, WIDTH, NAME) \
  __global__ void moments_by_##NAME(ARRAY, const ELEMENT* x, Moments* parts) { \
    const Passes passes = {0, 0, 0, 0}; \
    reduce_##WAY<Moments, WIDTH>(THE_ARRAY, x, 0, passes, parts); \
  }

#define SUMS(WAY, WIDTH, NAME) \
  __global__ void sums_by_##NAME( \
      ARRAY, const ELEMENT* x, const ELEMENT* gy, const double* mean, \
      const double* inv_std, const PARAMETER* gamma, const PARAMETER* beta, \
      Sums* parts) { \
    const Passes passes = {mean, inv_std, gamma, beta}; \
    reduce_##WAY<Sums, WIDTH>(THE_ARRAY, x, gy, passes, parts); \
  }

#define NORMALIZE(WAY, WIDTH, NAME) \
  __global__ void normalize_by_##NAME( \
      ARRAY, const ELEMENT* x, ELEMENT* y, const double* mean, \
      const double* inv_std, const PARAMETER* gamma, const PARAMETER* beta, \
      Size relu) { \
    const Normalizations maps = {mean, inv_std, gamma, beta, relu != 0}; \
    map_##WAY<Normalizations, WIDTH>(THE_ARRAY, x, 0, y, maps); \
  }

// The count is at `count_at`, unless that is null.
#define DIFFERENTIATE(WAY, WIDTH, NAME) \
  __global__ void differentiate_by_##NAME( \
      ARRAY, const ELEMENT* x, const ELEMENT* gy, ELEMENT* gx, const double* mean, \
      const double* inv_std, const PARAMETER* gamma, const PARAMETER* beta, \
      const double* total, const double* count_at, double count) { \
    const Gradients maps = {mean,  inv_std, gamma, beta, \
                            total, count_at ? *count_at : count, c}; \
    map_##WAY<Gradients, WIDTH>(THE_ARRAY, x, gy, gx, maps); \
  }

extern "C" {
IN_EACH_WAY(MOMENTS)
IN_EACH_WAY(SUMS)
IN_EACH_WAY(NORMALIZE)
IN_EACH_WAY(DIFFERENTIATE)

__global__ void finish_moments(const Moments* parts, Size n_parts, Size c, Size columns,
                               double* mean, double* m2) {
  const Moments all = all_parts(parts, n_parts, c, columns);
  if (threadIdx.x == 0) {
    mean[blockIdx.x] = all.mean;
    m2[blockIdx.x] = all.m2;
  }
}

__global__ void finish_sums(const Sums* parts, Size n_parts, Size c, Size columns,
                            const double* inv_std, double* sums) {
  const Sums all = all_parts(parts, n_parts, c, columns);
  if (threadIdx.x == 0) {
    sums[blockIdx.x] = all.gy;
    sums[c + blockIdx.x] = all.gy_d * inv_std[blockIdx.x];
  }
}

// The count is at `count_at`, unless that is null; so, too, are there running
// statistics to update unless they are null.
__global__ void finish_statistics(Size c, const double* count_at, double count,
                                  const double* mean, const double* m2, double eps,
                                  double* inv_std, PARAMETER* running_mean,
                                  PARAMETER* running_var, double decay) {
  const Size k = (Size)blockIdx.x * THREADS + threadIdx.x;
  if (k >= c) return;
  if (count_at) count = *count_at;
  const double var = m2[k] / count;
  inv_std[k] = 1 / sqrt(var + eps);
  if (!running_mean) return;
  const double unbiased = var * (count / (count > 1 ? count - 1 : 1));
  assign(running_mean[k],
         decay * to_double(running_mean[k]) + (1 - decay) * mean[k]);
  assign(running_var[k],
         decay * to_double(running_var[k]) + (1 - decay) * unbiased);
}
}
