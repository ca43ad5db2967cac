"""What runs GPU kernels on the CPU shows where a barrier is missing."""

import cuda_on_host
import numpy as np
import pytest

THREADS = 256
SOURCE = """
// All threads read what the first one wrote.
__global__ void read_after_write(double* out) {
  __shared__ double value;
  if (threadIdx.x == 0) value = 1;
  BARRIER;
  out[threadIdx.x] = value;
  __syncthreads();
  value = 0;
}

// The last thread writes what all read before.
__global__ void write_after_read(double* out) {
  __shared__ double value;
  value = 1;
  __syncthreads();
  out[threadIdx.x] = value;
  BARRIER;
  if (threadIdx.x == THREADS - 1) value = 0;
}

__global__ void differing_barriers(double* out) {
  if (threadIdx.x > 0) __syncthreads();
}
"""


def launcher(barrier):
    return cuda_on_host.load(SOURCE, (f"-DBARRIER={barrier}", f"-DTHREADS={THREADS}"))


@pytest.mark.parametrize("kernel", ["read_after_write", "write_after_read"])
def test_a_missing_barrier_shows(kernel):
    out = np.empty(THREADS)
    launcher("__syncthreads()")(kernel, (1,), out)
    assert (out == 1).all()
    launcher("")(kernel, (1,), out)
    assert not (out == 1).all()


def test_barriers_that_differ_are_refused():
    with pytest.raises(AssertionError, match="not all threads came to the same"):
        launcher("")("differing_barriers", (1,), np.empty(THREADS))
