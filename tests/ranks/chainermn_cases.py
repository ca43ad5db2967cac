"""What ChainerMN asks of its own MultiNodeBatchNormalization, asked of ours.

A classifier of three linear layers with a normalization behind the first two: the
averaged gradients over the ranks are those of one worker with the whole batch, and,
to see that this can fail, not those of normalization on each rank for itself.
"""

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
import pytest
from reference import error

from chainer_crossbn import CrossBatchNormalization, create_cross_bn_model

LOCAL_BATCH, N_IN, N_UNITS, N_CLASS = 10, 3, 3, 2


def classifier(normalization):
    return L.Classifier(
        chainer.Sequential(
            L.Linear(N_IN, N_UNITS, nobias=True),
            normalization(),
            F.relu,
            L.Linear(N_UNITS, N_UNITS, nobias=True),
            normalization(),
            F.relu,
            L.Linear(N_UNITS, N_CLASS),
        )
    )


def gradients(model, x, t, comm=None):
    model.cleargrads()
    model(x, t).backward()
    if comm is not None:
        comm.multi_node_mean_grad(model)
    return {name: p.grad.astype(np.float64) for name, p in model.namedparams()}


def apart(found, expected):
    """Return the largest difference over the largest gradient."""
    names = sorted(expected)
    return error(
        *(np.concatenate([v[n].ravel() for n in names]) for v in (found, expected))
    )


@pytest.mark.parametrize(
    "dtype,limit", [(np.float16, 5e-3), (np.float32, 1e-5), (np.float64, 1e-11)]
)
@pytest.mark.parametrize("seed", range(3))
def test_gradients_are_those_of_one_worker(comm, dtype, limit, seed):
    state = np.random.RandomState(71 + seed)
    x = state.random_sample((LOCAL_BATCH * comm.size, N_IN)).astype(dtype)
    t = state.randint(0, N_CLASS, len(x)).astype(np.int32)
    mine = slice(LOCAL_BATCH * comm.rank, LOCAL_BATCH * (comm.rank + 1))
    np.random.seed(seed)
    with chainer.using_config("dtype", dtype):
        stock = classifier(lambda: L.BatchNormalization(N_UNITS))
        ours = classifier(lambda: CrossBatchNormalization(N_UNITS, comm))
    ours.copyparams(stock)
    with chainer.using_config("dtype", np.float64):
        truth = classifier(lambda: L.BatchNormalization(N_UNITS))
    truth.copyparams(stock)
    expected = gradients(truth, x.astype(np.float64), t)

    assert apart(gradients(stock, x, t), expected) < limit
    # all ranks with the whole batch, as one worker
    assert apart(gradients(ours, x, t), expected) < limit
    assert apart(gradients(ours, x[mine], t[mine], comm), expected) < limit
    converted = create_cross_bn_model(stock, comm)
    assert apart(gradients(converted, x[mine], t[mine], comm), expected) < limit
    if comm.size > 1:
        local = gradients(stock, x[mine], t[mine], comm)
        assert apart(local, expected) > 5 * limit
