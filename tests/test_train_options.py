"""The table of options agrees with what it describes."""

import pytest

from chainer_crossbn import datasets, models
from chainer_crossbn.commands.train import options
from chainer_crossbn.models import normalizations
from chainer_crossbn.runs.options import OPTIONS


def test_choices_are_those_of_the_registries():
    assert set(OPTIONS["bn"].choices) == set(normalizations.NAMES)
    assert set(OPTIONS["model"].choices) == set(models.MODELS)
    assert set(OPTIONS["dataset"].choices) == set(datasets.NAMES)


@pytest.mark.parametrize("bn", normalizations.NAMES)
def test_options_of_normalizations(bn):
    applied = {
        name: option.default_there
        for name, option in OPTIONS.items()
        if option.applies_to and option.applies_to[0] == "bn"
        if bn in option.applies_to[1]
    }
    layers = bn in normalizations.OF_LAYERS
    assert ("bn_layers" in applied) == layers
    applied.pop("bn_layers", None)
    assert applied == normalizations.OPTIONS[bn]


@pytest.mark.parametrize("model", models.MODELS)
def test_options_of_models(model):
    for name, option in OPTIONS.items():
        if option.applies_to and option.applies_to[0] == "model":
            supported = model in option.applies_to[1]
            assert supported == (name in models.OPTIONS[model])
            if supported and option.default_there is not None:
                assert models.OPTIONS[model][name] == option.default_there


def test_every_option_is_recorded():
    args = options.parse([])
    assert list(vars(args)) == list(OPTIONS)
