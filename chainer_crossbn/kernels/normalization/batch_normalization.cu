// Batch normalization of arrays of shape (n, c, s), with arithmetic in double.
//
// To be defined: ELEMENT, PARAMETER and RUNNING, the types of the images, of gamma and
// beta, and of the running statistics, each float, double or Half; WIDE_PLANES and
// WIDE_COLUMNS, how many elements a thread loads at a time where they lie at addresses
// that permit it; RELU, 1 where ReLU follows, and else 0: the backward pass then computes
// its input once more; THREADS, how many a block has, a power of two.
//
// An array is read in one of two ways. By planes: a block has one channel, and its
// threads have neighbouring positions of it. By columns, where s is a small power of two
// (1, if channels are last in memory): the array is a matrix of n rows and c * s
// columns, and a thread has WIDTH neighbouring columns of it. Blocks are THREADS wide,
// `lanes` of them along a row, and the rows and the positions are shared among
// row_parts * column_parts blocks. What they have found of a sum is put together, always
// in the same order, by the last of them to arrive.
//
// The rows may be divided into groups that have statistics of their own. A block has rows
// of one group, which is its blockIdx.z. Vectors of statistics hold the channels of the
// first group, then those of the next; gamma and beta are the same for all groups.

typedef long long Size;

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

// An array, and how its rows and positions are shared out. A group is `ranks` consecutive
// virtual ranks, each of which has `rows_of_rank` rows; the first `longer_ranks` of all
// have one sample more, which is `rows_of_sample` rows.
struct Array {
  Size c, s;
  Size lanes, row_parts, column_parts;
  Size ranks, rows_of_rank, longer_ranks, rows_of_sample;

  __device__ Size start(Size group) const {
    const Size rank = group * ranks, longer = rank < longer_ranks ? rank : longer_ranks;
    return rank * rows_of_rank + longer * rows_of_sample;
  }

  // Of the block's group: the first row, the first one after it, and how many it has.
  __device__ Size first_row() const { return start(blockIdx.z); }
  __device__ Size end_row() const { return start(blockIdx.z + 1); }
  __device__ Size rows() const { return end_row() - first_row(); }

  // Where a vector of statistics has a channel of the block's group.
  __device__ Size statistic(Size channel) const { return blockIdx.z * c + channel; }
};

// The vectors of a thread, by planes; places count vectors from the array's start.
template <int WIDTH>
struct Walk {
  Size row, end, row_step, at, first, step, length, channel, channels;

  __device__ explicit Walk(const Array& a) {
    channel = blockIdx.x;
    channels = a.c;
    length = a.s / WIDTH;
    const Size rows_of_block = THREADS / a.lanes;
    row = a.first_row() + blockIdx.y % a.row_parts * rows_of_block +
          threadIdx.x / a.lanes;
    row_step = a.row_parts * rows_of_block;
    first = blockIdx.y / a.row_parts * a.lanes + threadIdx.x % a.lanes;
    step = a.column_parts * a.lanes;
    at = first;
    end = first < length ? a.end_row() : 0;
  }

  __device__ bool more() const { return row < end; }

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
  Size column, columns, row, end, step;

  __device__ explicit Columns(const Array& a) {
    columns = a.c * a.s;
    column = (blockIdx.x * a.lanes + threadIdx.x % a.lanes) * WIDTH;
    const Size rows_of_block = THREADS / a.lanes;
    row = a.first_row() + blockIdx.y * rows_of_block + threadIdx.x / a.lanes;
    step = a.row_parts * rows_of_block;
    end = column < columns ? a.end_row() : 0;
  }

  __device__ bool more() const { return row < end; }

  __device__ Size next() {
    const Size place = (row * columns + column) / WIDTH;
    row += step;
    return place;
  }
};

// What ReLU, where there is one, lets pass of the gradient of its output.
struct Pass {
  double mean, scale, shift;

  __device__ double operator()(double x, double gy) const {
    return !RELU || (x - mean) * scale + shift > 0 ? gy : 0;
  }
};

struct Passes {
  const double *mean, *inv_std;
  const PARAMETER *gamma, *beta;  // as they were in the forward pass, if ReLU followed

  // `at` is where vectors of statistics have the channel, as in all that follows.
  __device__ Pass of(Size channel, Size at) const {
    if (!RELU || !gamma) return Pass();
    const double scale = to_double(gamma[channel]) * inv_std[at];
    return {mean[at], scale, to_double(beta[channel])};
  }
};

// How many of `total` there are in a part, if all parts take `width` of them in turns.
__device__ inline Size share(Size total, Size width, Size parts, Size part) {
  const Size turn = parts * width, rest = total % turn - part * width;
  return total / turn * width + (rest < 0 ? 0 : rest < width ? rest : width);
}

// Returns whether this block is the last of `number` to arrive, by a count that is 0 at
// first and is left so; it then sees what the others wrote before they did.
__device__ bool is_last(unsigned& arrived, unsigned number) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(&arrived, 1u) + 1 == number;
    if (last) arrived = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

// Sums over the block, by planes; all threads get the sum.
struct SumOfPlane {
  __device__ void operator()(double (&value)[1]) const {
    __shared__ double values[THREADS];
    const int thread = threadIdx.x;
    values[thread] = value[0];
    __syncthreads();
    for (int half = THREADS / 2; half; half /= 2) {
      if (thread < half) values[thread] += values[thread + half];
      __syncthreads();
    }
    value[0] = values[0];
    __syncthreads();  // as the next call writes to them
  }
};

// Sums over the block's rows and the columns of a channel, by columns; each thread gets
// the sums of the channels that it has.
struct SumOfColumns {
  Size lanes, s;

  template <int WIDTH>
  __device__ void operator()(double (&value)[WIDTH]) const {
    __shared__ double values[THREADS * WIDTH];
    const int thread = threadIdx.x, columns = lanes * WIDTH;
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) values[thread * WIDTH + w] = value[w];
    __syncthreads();
    double sum = 0;
    if (thread < columns) {
      for (int i = thread; i < THREADS * WIDTH; i += columns) sum += values[i];
      values[thread] = sum;  // which no other thread has read
    }
    __syncthreads();
    sum = 0;
    if (thread * s < columns)
      for (int i = 0; i < s; ++i) sum += values[thread * s + i];
    __syncthreads();
    if (thread * s < columns) values[thread] = sum;
    __syncthreads();
    const int first = thread % (int)lanes * WIDTH;
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) value[w] = values[(first + w) / (int)s];
    __syncthreads();  // as the next call writes to them
  }
};

// Count, mean and the sum of squared deviations of some values.
struct Moments {
  static const bool OF_PAIRS = false;
  double count, mean, m2;

  struct Result {
    double *mean, *m2;

    __device__ void operator()(Size, Size at, const Moments& found) const {
      mean[at] = found.mean;
      m2[at] = found.m2;
    }

    __device__ void sum_groups(unsigned*, Size, int) const {}
  };

  // Finds those of a block's values, of which a thread has the sum of x - origin and
  // that of its square, for an origin of its own that is one of the values: neither loses
  // digits, however far the values are from 0 or the origin from the others.
  template <int N, class Sum>
  __device__ static void of_block(const Sum& sum, Size of_block, Size of_thread,
                                  const double (&origin)[N], const double (&d)[N],
                                  const double (&d_d)[N], Moments (&found)[N]) {
    double mean[N], m2[N];
#pragma unroll
    for (int i = 0; i < N; ++i) mean[i] = of_thread * origin[i] + d[i];
    sum(mean);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      mean[i] /= of_block;
      const double off = origin[i] - mean[i];
      m2[i] = d_d[i] + off * (2 * d[i] + of_thread * off);
    }
    sum(m2);
#pragma unroll
    for (int i = 0; i < N; ++i) found[i] = {(double)of_block, mean[i], m2[i]};
  }

  // Chan, Golub and LeVeque (1979).
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
};

// Sums of gy and of gy * (x - mean).
struct Sums {
  static const bool OF_PAIRS = true;
  double gy, gy_d;

  struct Result {
    Size c;
    const double* inv_std;
    double* sums;          // all groups' of gy, then all groups' of gy * x_hat
    PARAMETER* gradients;  // of beta, then of gamma

    __device__ void operator()(Size channel, Size at, const Sums& found) const {
      const double gy_x_hat = found.gy_d * inv_std[at];
      sums[at] = found.gy;
      sums[gridDim.z * c + at] = gy_x_hat;
      if (gridDim.z > 1) return;  // the gradients have the sums of all groups
      assign(gradients[channel], found.gy);
      assign(gradients[c + channel], gy_x_hat);
    }

    // Has the last group to arrive make the gradients of `channels` channels from the
    // first on of the sums of all groups, in their order.
    __device__ void sum_groups(unsigned* arrived, Size first, int channels) const {
      if (gridDim.z == 1 || !is_last(arrived[blockIdx.x], gridDim.z)) return;
      for (int i = threadIdx.x; i < 2 * channels; i += THREADS) {
        const Size half = i / channels, channel = first + i % channels;
        if (channel >= c) continue;
        const volatile double* of_group = sums + half * gridDim.z * c + channel;
        double sum = 0;
#pragma unroll 8
        for (unsigned group = 0; group < gridDim.z; ++group, of_group += c)
          sum += *of_group;
        assign(gradients[half * c + channel], sum);
      }
    }
  };

  template <int N, class Sum>
  __device__ static void of_block(const Sum& sum, Size, Size, const double (&)[N],
                                  double (&gy)[N], double (&gy_d)[N],
                                  Sums (&found)[N]) {
    sum(gy);
    sum(gy_d);
#pragma unroll
    for (int i = 0; i < N; ++i) found[i] = {gy[i], gy_d[i]};
  }

  __device__ void merge(const Sums& other) {
    gy += other.gy;
    gy_d += other.gy_d;
  }
};

// Merges what the threads of a block have, down to the first `left` of them.
template <class Part>
__device__ Part merged(const Part& mine, int left) {
  __shared__ Part parts[THREADS];
  const int thread = threadIdx.x;
  parts[thread] = mine;
  __syncthreads();
  for (int half = THREADS / 2; half >= left; half /= 2) {
    if (thread < half) parts[thread].merge(parts[thread + half]);
    __syncthreads();
  }
  return parts[thread];
}

// Where the blocks of a group leave what they have found, and how many have.
template <class Part>
struct Meeting {
  Part* parts;  // of shape (groups, blocks, c)
  // 0, and 0 again in the end: of groups, for each blockIdx.x, and then of the blocks of
  // each group, for each blockIdx.x.
  unsigned* arrived;

  __device__ Part& left_by(Size block, Size channel, Size c) const {
    return parts[(blockIdx.z * gridDim.y + block) * c + channel];
  }

  // Reads what another block has left, which the cache of this one may not know of.
  __device__ Part read(Size block, Size channel, Size c) const {
    Part part;
    const volatile double* from = (const volatile double*)&left_by(block, channel, c);
    for (int i = 0; i < sizeof(Part) / sizeof(double); ++i) ((double*)&part)[i] = from[i];
    return part;
  }

  // Returns whether this block is the last of its group to arrive of those that have its
  // `channels` channels from the first on; if so, has the parts of all of them merged,
  // and the results written.
  __device__ bool conclude(Size first, int channels, const Array& a,
                           const typename Part::Result& result) const {
    const Size which = (Size)(blockIdx.z + 1) * gridDim.x + blockIdx.x;
    if (!is_last(arrived[which], gridDim.y)) return false;
    const Size channel = first + threadIdx.x % channels;
    Part all = {};
    if (channel < a.c)
      for (Size i = threadIdx.x / channels; i < gridDim.y; i += THREADS / channels)
        all.merge(read(i, channel, a.c));
    all = merged(all, channels);
    if (threadIdx.x < channels && channel < a.c)
      result(channel, a.statistic(channel), all);
    return true;
  }
};

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

// Adds up a thread's elements by their place in a vector, with an origin and a Pass for
// each place, or for all where MANY is false; returns how many vectors there were. The
// origins of moments are what the thread reads first.
template <class Part, int WIDTH, bool MANY, class Places>
__device__ Size accumulate(Places& places, const ELEMENT* x, const ELEMENT* gy,
                           const Pass* pass, double* origin, double (&g)[WIDTH],
                           double (&g_d)[WIDTH]) {
  Size vectors = 0;
  while (places.more()) {
    Vector<WIDTH> vx[CHUNK] = {}, vgy[CHUNK] = {};
    const int used = load<Part::OF_PAIRS>(places, x, gy, vx, vgy);
    if (!Part::OF_PAIRS && vectors == 0) {
#pragma unroll
      for (int w = 0; w < (MANY ? WIDTH : 1); ++w) origin[w] = to_double(vx[0].at[w]);
    }
    vectors += used;
#pragma unroll
    for (int i = 0; i < CHUNK; ++i)
      if (i < used) {
#pragma unroll
        for (int w = 0; w < WIDTH; ++w) {
          const int of = MANY ? w : 0;
          const double one = to_double(vx[i].at[w]), d = one - origin[of];
          const double term =
              Part::OF_PAIRS ? pass[of](one, to_double(vgy[i].at[w])) : d;
          g[w] += term;
          g_d[w] += term * d;
        }
      }
  }
  return vectors;
}

template <class Part, int WIDTH>
__device__ void reduce_planes(Array a, const ELEMENT* x, const ELEMENT* gy,
                              const Passes& passes, const Meeting<Part>& meeting,
                              const typename Part::Result& result) {
  Walk<WIDTH> places(a);
  const Size channel = blockIdx.x, at = a.statistic(channel);
  const Pass pass = passes.of(channel, at);
  double origin[1] = {Part::OF_PAIRS ? passes.mean[at] : 0};
  double g[WIDTH] = {}, g_d[WIDTH] = {};
  const Size vectors =
      accumulate<Part, WIDTH, false>(places, x, gy, &pass, origin, g, g_d);
  double sum[1] = {g[0]}, sum_d[1] = {g_d[0]};
#pragma unroll
  for (int w = 1; w < WIDTH; ++w) {
    sum[0] += g[w];
    sum_d[0] += g_d[w];
  }
  const Size rows =
      share(a.rows(), THREADS / a.lanes, a.row_parts, blockIdx.y % a.row_parts);
  const Size length =
      share(a.s / WIDTH, a.lanes, a.column_parts, blockIdx.y / a.row_parts);
  Part found[1];
  Part::of_block(SumOfPlane(), rows * length * WIDTH, vectors * WIDTH, origin, sum,
                 sum_d, found);
  if (threadIdx.x == 0) {
    if (gridDim.y == 1)
      result(channel, at, found[0]);
    else
      meeting.left_by(blockIdx.y, channel, a.c) = found[0];
  }
  if (gridDim.y == 1 || meeting.conclude(channel, 1, a, result))
    result.sum_groups(meeting.arrived, channel, 1);
}

template <class Part, int WIDTH>
__device__ void reduce_columns(Array a, const ELEMENT* x, const ELEMENT* gy,
                               const Passes& passes, const Meeting<Part>& meeting,
                               const typename Part::Result& result) {
  Columns<WIDTH> places(a);
  const int channels = a.lanes * WIDTH / a.s;
  const Size first = (Size)blockIdx.x * channels, column = places.column;
  double origin[WIDTH] = {}, g[WIDTH] = {}, g_d[WIDTH] = {};
  Pass pass[WIDTH];
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) {
    const Size channel = column < places.columns ? (column + w) / a.s : 0;
    pass[w] = passes.of(channel, a.statistic(channel));
    if (Part::OF_PAIRS) origin[w] = passes.mean[a.statistic(channel)];
  }
  const Size vectors =
      accumulate<Part, WIDTH, true>(places, x, gy, pass, origin, g, g_d);
  const Size rows = share(a.rows(), THREADS / a.lanes, a.row_parts, blockIdx.y);
  Part found[WIDTH];
  const SumOfColumns sum = {a.lanes, a.s};
  Part::of_block(sum, rows * a.s, vectors, origin, g, g_d, found);
#pragma unroll
  for (int w = 0; w < WIDTH; ++w)
    if (threadIdx.x < a.lanes && column < places.columns && (column + w) % a.s == 0) {
      const Size channel = (column + w) / a.s;
      if (gridDim.y == 1)
        result(channel, a.statistic(channel), found[w]);
      else
        meeting.left_by(blockIdx.y, channel, a.c) = found[w];
    }
  if (gridDim.y == 1 || meeting.conclude(first, channels, a, result))
    result.sum_groups(meeting.arrived, first, channels);
}

// y = (x - mean) * scale + beta
struct Normalization {
  static const bool OF_PAIRS = false;
  double mean, scale, shift;

  __device__ double operator()(double x, double) const {
    const double y = (x - mean) * scale + shift;
    return RELU && y <= 0 ? 0 : y;  // a NaN stays
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

// A number, which is on the device unless the pointer is null.
struct Count {
  const double* at;
  double value;

  __device__ double get() const { return at ? *at : value; }
};

// What statistics are made of, unless m2 is null: inv_std is known then.
struct Statistics {
  const double *mean, *m2;
  Count count;
  double eps;
  double* inv_std;
  RUNNING *running_mean, *running_var;  // or null
  double decay;

  // Returns 1 / sqrt(var + eps); writes it, and the running statistics, where it is to.
  __device__ double finish(Size at, bool writes) const {
    if (!m2) return inv_std[at];
    const double n = count.get(), var = m2[at] / n;
    const double found = 1 / sqrt(var + eps);
    if (!writes) return found;
    inv_std[at] = found;
    if (running_mean) {
      keep(running_mean[at], mean[at]);
      keep(running_var[at], var * (n / (n > 1 ? n - 1 : 1)));
    }
    return found;
  }

  __device__ void keep(RUNNING& running, double now) const {
    assign(running, decay * to_double(running) + (1 - decay) * now);
  }
};

struct Normalizations {
  typedef Normalization Of;
  Statistics statistics;
  const PARAMETER *gamma, *beta;

  __device__ Of of(Size channel, Size at) const {
    const double inv_std = statistics.finish(at, blockIdx.y == 0);
    const double scale = to_double(gamma[channel]) * inv_std;
    return {statistics.mean[at], scale, to_double(beta[channel])};
  }
};

struct Gradients {
  typedef Gradient Of;
  const double *mean, *inv_std;
  const PARAMETER* gamma;
  Passes passes;
  const double* total;  // over all ranks: sums of gy, then of gy * x_hat
  Count count;
  Size c;

  __device__ Of of(Size channel, Size at) const {
    const double n = count.get(), std = inv_std[at];
    const double slope = std * (total[gridDim.z * c + at] / n);
    return {mean[at], slope, to_double(gamma[channel]) * std, total[at] / n,
            passes.of(channel, at)};
  }
};

// Applies the maps of a thread's columns, all of one channel where MANY is false.
template <int WIDTH, bool MANY, class Map, class Places>
__device__ void apply(Places& places, const ELEMENT* x, const ELEMENT* gy, ELEMENT* out,
                      const Map* map) {
  while (places.more()) {
    Places outputs = places;
    Vector<WIDTH> vx[CHUNK] = {}, vgy[CHUNK] = {};
    const int used = load<Map::OF_PAIRS>(places, x, gy, vx, vgy);
#pragma unroll
    for (int i = 0; i < CHUNK; ++i)
      if (i < used) {
        Vector<WIDTH> result;
#pragma unroll
        for (int w = 0; w < WIDTH; ++w)
          assign(result.at[w], map[MANY ? w : 0](to_double(vx[i].at[w]),
                                                 to_double(vgy[i].at[w])));
        ((Vector<WIDTH>*)out)[outputs.next()] = result;
      }
  }
}

template <class Maps, int WIDTH>
__device__ void map_planes(Array a, const ELEMENT* x, const ELEMENT* gy, ELEMENT* out,
                           const Maps& maps) {
  __shared__ typename Maps::Of of_block;
  if (threadIdx.x == 0) of_block = maps.of(blockIdx.x, a.statistic(blockIdx.x));
  __syncthreads();
  const typename Maps::Of map = of_block;
  Walk<WIDTH> places(a);
  apply<WIDTH, false>(places, x, gy, out, &map);
}

template <class Maps, int WIDTH>
__device__ void map_columns(Array a, const ELEMENT* x, const ELEMENT* gy, ELEMENT* out,
                            const Maps& maps) {
  __shared__ typename Maps::Of of_block[THREADS];
  const int channels = a.lanes * WIDTH / a.s;
  const Size channel = (Size)blockIdx.x * channels + threadIdx.x;
  if (threadIdx.x < channels && channel < a.c)
    of_block[threadIdx.x] = maps.of(channel, a.statistic(channel));
  __syncthreads();
  typename Maps::Of map[WIDTH];
  const int first = threadIdx.x % (int)a.lanes * WIDTH;
#pragma unroll
  for (int w = 0; w < WIDTH; ++w) map[w] = of_block[(first + w) / (int)a.s];
  Columns<WIDTH> places(a);
  apply<WIDTH, true>(places, x, gy, out, map);
}

#define ARRAY \
  Size c, Size s, Size lanes, Size row_parts, Size column_parts, Size ranks, \
      Size rows_of_rank, Size longer_ranks, Size rows_of_sample
#define THE_ARRAY \
  {c, s, lanes, row_parts, column_parts, ranks, rows_of_rank, longer_ranks, \
   rows_of_sample}

// Each in four ways: by planes and by columns, by single elements and by wide vectors.
#define IN_EACH_WAY(KERNEL) \
  KERNEL(planes, 1, planes) \
  KERNEL(planes, WIDE_PLANES, wide_planes) \
  KERNEL(columns, 1, columns) \
  KERNEL(columns, WIDE_COLUMNS, wide_columns)

// The bound lets compilers give a thread all the registers that it can have.
#define KERNEL_OF_THREADS __launch_bounds__(THREADS) __global__

#define MOMENTS(WAY, WIDTH, NAME) \
  KERNEL_OF_THREADS void moments_by_##NAME( \
      ARRAY, const ELEMENT* x, double* mean, double* m2, Moments* parts, \
      unsigned* arrived) { \
    reduce_##WAY<Moments, WIDTH>(THE_ARRAY, x, 0, Passes(), {parts, arrived}, \
                                 {mean, m2}); \
  }

#define SUMS(WAY, WIDTH, NAME) \
  KERNEL_OF_THREADS void sums_by_##NAME( \
      ARRAY, const ELEMENT* x, const ELEMENT* gy, const double* mean, \
      const double* inv_std, double* sums, PARAMETER* gradients, \
      const PARAMETER* gamma, const PARAMETER* beta, Sums* parts, \
      unsigned* arrived) { \
    const Passes passes = {mean, inv_std, gamma, beta}; \
    reduce_##WAY<Sums, WIDTH>(THE_ARRAY, x, gy, passes, {parts, arrived}, \
                              {c, inv_std, sums, gradients}); \
  }

// The count is on the device; or it is `count`; or, where that is 0, that of the block's
// group.
#define THE_COUNT {count_on_device, count ? count : (double)(a.rows() * s)}

#define NORMALIZE(WAY, WIDTH, NAME) \
  KERNEL_OF_THREADS void normalize_by_##NAME( \
      ARRAY, const ELEMENT* x, ELEMENT* y, const double* mean, double* inv_std, \
      const PARAMETER* gamma, const PARAMETER* beta, const double* m2, \
      const double* count_on_device, double count, double eps, \
      RUNNING* running_mean, RUNNING* running_var, double decay) { \
    const Array a = THE_ARRAY; \
    const Normalizations maps = {{mean, m2, THE_COUNT, eps, inv_std, running_mean, \
                                  running_var, decay}, \
                                 gamma, beta}; \
    map_##WAY<Normalizations, WIDTH>(a, x, 0, y, maps); \
  }

#define DIFFERENTIATE(WAY, WIDTH, NAME) \
  KERNEL_OF_THREADS void differentiate_by_##NAME( \
      ARRAY, const ELEMENT* x, const ELEMENT* gy, ELEMENT* gx, const double* mean, \
      const double* inv_std, const PARAMETER* gamma, const double* total, \
      const double* count_on_device, double count, const PARAMETER* relu_gamma, \
      const PARAMETER* relu_beta) { \
    const Array a = THE_ARRAY; \
    const Gradients maps = {mean, inv_std, gamma, \
                            {mean, inv_std, relu_gamma, relu_beta}, \
                            total, THE_COUNT, c}; \
    map_##WAY<Gradients, WIDTH>(a, x, gy, gx, maps); \
  }

extern "C" {
IN_EACH_WAY(MOMENTS)
IN_EACH_WAY(SUMS)
IN_EACH_WAY(NORMALIZE)
IN_EACH_WAY(DIFFERENTIATE)
}
