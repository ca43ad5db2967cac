// What ranks send each other and get back: two tags, then numbers. Blocks are THREADS
// wide, which is to be defined.

typedef long long Size;

__device__ inline Size index_of_thread() {
  return (Size)blockIdx.x * THREADS + threadIdx.x;
}

__device__ inline void tag(double* packed, double number) {
  packed[0] = number;
  packed[1] = number * number;
}

// Flags a number whose tags are not those that are expected of all ranks, if it is the
// first of these.
__device__ inline void check(const double* received, double sum, double sum_of_squares,
                             Size number, Size* flag) {
  if (*flag == 0 && (received[0] != sum || received[1] != sum_of_squares))
    *flag = number;
}

extern "C" {
__global__ void pack_vector(Size size, double number, const double* vector,
                            double* packed) {
  const Size i = index_of_thread();
  if (i == 0) tag(packed, number);
  if (i < size) packed[2 + i] = vector[i];
}

__global__ void unpack_vector(Size size, const double* received, double sum,
                              double sum_of_squares, Size number, Size* flag,
                              double* vector) {
  const Size i = index_of_thread();
  if (i == 0) check(received, sum, sum_of_squares, number, flag);
  if (i < size) vector[i] = received[2 + i];
}

__global__ void pack_moments(Size c, double number, double count, const double* mean,
                             const double* m2, double* packed) {
  const Size k = index_of_thread();
  if (k == 0) {
    tag(packed, number);
    packed[2] = count;
  }
  if (k >= c) return;
  packed[3 + k] = count * mean[k];
  packed[3 + c + k] = m2[k] + count * mean[k] * mean[k];
}

// The count, then means, then M2.
__global__ void unpack_moments(Size c, const double* received, double sum,
                               double sum_of_squares, Size number, Size* flag,
                               double* merged) {
  const Size k = index_of_thread();
  const double count = received[2];
  if (k == 0) {
    check(received, sum, sum_of_squares, number, flag);
    merged[0] = count;
  }
  if (k >= c) return;
  const double mean = received[3 + k] / (count < 1 ? 1 : count);
  const double m2 = received[3 + c + k] - count * mean * mean;
  merged[1 + k] = mean;
  merged[1 + c + k] = m2 < 0 ? 0 : m2;  // a NaN stays
}
}
