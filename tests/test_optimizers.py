"""The optimizer beside Chainer's own."""

import chainer_crossbn  # noqa: F401  makes Chainer importable

# isort: split
import chainer
import chainer.links as L
import numpy as np
import pytest
from reference import error

from chainer_crossbn.training.optimizers import MomentumSGD


def model(dtype):
    np.random.seed(0)
    with chainer.using_config("dtype", dtype):
        return chainer.Sequential(L.Linear(5, 4), L.Linear(4, 3, nobias=True))


def values_of(link):
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(link)
    return serializer.target


def change(gradient, kind):
    if kind == "Fortran order":
        return np.asfortranarray(gradient)
    return gradient


@pytest.mark.parametrize("kind", ["C order", "Fortran order"])
@pytest.mark.parametrize("decay", [0, 0.01])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_steps_are_those_of_chainer(dtype, decay, kind):
    optimizers = (
        MomentumSGD(0.1, 0.8, weight_decay=decay),
        chainer.optimizers.MomentumSGD(0.1, 0.8),
    )
    models = [model(dtype) for _ in optimizers]
    for optimizer, link in zip(optimizers, models):
        optimizer.setup(link)
    optimizers[1].add_hook(chainer.optimizer_hooks.WeightDecay(decay))
    for step in range(3):
        for optimizer, link in zip(optimizers, models):
            state = np.random.RandomState(step)
            for _, parameter in sorted(link.namedparams()):
                gradient = state.randn(*parameter.shape).astype(dtype)
                parameter.grad = change(gradient, kind)
            link[1].W.grad = None if step == 1 else link[1].W.grad
            optimizer.lr *= 0.9
            optimizer.update()
    limit = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-14}[np.dtype(dtype).name]
    for kept in (models, optimizers):
        ours, theirs = map(values_of, kept)
        assert sorted(ours) == sorted(theirs)
        for name, value in theirs.items():
            assert error(ours[name], value) < limit, name


def test_gradients_stay_and_frozen_parameters_too():
    link = model(np.float32)
    optimizer = MomentumSGD(0.1, weight_decay=0.5).setup(link)
    link[0].disable_update()
    before = {name: p.array.copy() for name, p in link.namedparams()}
    for parameter in link.params():
        parameter.grad = np.ones_like(parameter.array)
    optimizer.update()
    for name, parameter in link.namedparams():
        assert (parameter.grad == 1).all()
        assert (parameter.array == before[name]).all() == name.startswith("/0")
