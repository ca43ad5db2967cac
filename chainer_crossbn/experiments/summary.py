"""The first screen of the report, and the judgement of each claim, in Markdown."""

import textwrap

from chainer_crossbn.experiments import machine
from chainer_crossbn.experiments.claims import NOT_RUN
from chainer_crossbn.plotting import style
from chainer_crossbn.text import markdown_table

_WIDTH = 88
_PAPER = (
    "Yashima, Ohyama and Matsuoka, *The relation between computing time and accuracy "
    "when using Batch Normalization in deep learning*, compare three networks: noBN "
    "has no batch normalization, normalBN normalizes the mini-batch of each rank by "
    "itself, and multigpuBN those of all ranks together."
)
_TWO_RULES = (
    "All claims but those about time are judged under two rules for the learning rate, "
    "which were chosen by accuracy alone: the *constant* rule ({constant}) and the "
    "*best* rule ({best})."
)
_NUMBERS = (
    "The criterion and all numbers of each claim are [below](#the-claims). Accuracies "
    "are medians over the seeds. A difference is the median of those between two runs "
    "of one seed, in points; two accuracies differ if it reaches the margin."
)
_SAME = "(the same)"


def opening(evaluation):
    """Say what was run.

    Args:
        evaluation (Evaluation): The finished runs; there is at least one.

    Returns:
        str: Some sentences.
    """
    scale = evaluation.scale
    sentences = [
        _PAPER,
        f"This is a test of their claims at the scale `{scale.name}`: "
        f"{_size(evaluation)}, {scale.ranks} ranks, "
        f"{style.setting('epoch', scale.epochs)}. {_machine(evaluation)}.",
    ]
    if len(evaluation.rules) > 1:
        sentences.append(_TWO_RULES.format(**evaluation.rules))
    quick = evaluation.quick_check
    if quick:
        sentences.append(
            f"The quick check is the same evaluation at the scale `{quick.scale.name}`:"
            f" {quick.runs[0].dataset['train']:,} training images and "
            f"{style.setting('epoch', quick.scale.epochs)}, under one rule."
        )
    return textwrap.fill(" ".join(sentences), _WIDTH)


def table(evaluation, judged):
    """Give the verdict on each claim, and the number that decides it.

    Args:
        evaluation (Evaluation): The finished runs.
        judged (dict): As :meth:`.Evaluation.judged` returns it.

    Returns:
        str: The table, and how to read it.
    """
    several = len(evaluation.rules) > 1
    head = ("claim", "the paper", "verdict", "the number that decides")
    if several:
        head = ("claim", "the paper", *(f"{name} rule" for name in evaluation.rules))
    quick = evaluation.quick_check.judged() if evaluation.quick_check else {}
    head += ("quick check",) if quick else ()
    lines = []
    for claim, by_rule in judged.items():
        first, *others = [by_rule.get(name) for name in evaluation.rules]
        if several:
            same = (None, first)
            rest = [_SAME if each in same else _cell(each) for each in others]
            cells = [_cell(first), *rest]
        else:
            cells = [f"**{first.verdict}**", first.deciding]
        if quick:
            (judgement,) = quick[claim].values()
            is_there = judgement.deciding != NOT_RUN
            cells.append(judgement.verdict if is_there else NOT_RUN)
        lines.append((claim.number, claim.paper, *cells))
    return f"{markdown_table(head, lines)}\n\n{textwrap.fill(_NUMBERS, _WIDTH)}"


def judgements(judged):
    """Give the criterion and all numbers of each claim.

    Args:
        judged (dict): As :meth:`.Evaluation.judged` returns it.

    Returns:
        str: A section for each claim.
    """
    return "\n\n".join(_section(claim, by_rule) for claim, by_rule in judged.items())


def _section(claim, by_rule):
    verdicts = {judgement.verdict for judgement in by_rule.values()}
    told = ", ".join(f"{j.verdict} ({name} rule)" for name, j in by_rule.items())
    parts = [
        f"### Claim {claim.number}: {told if len(verdicts) > 1 else verdicts.pop()}",
        f"The paper: {claim.paper}.",
        f"Criterion: {claim.criterion}",
    ]
    differ = len(set(by_rule.values())) > 1
    for name, judgement in by_rule.items() if differ else [*by_rule.items()][:1]:
        if differ:
            parts.append(f"{name.capitalize()} rule: **{judgement.verdict}**")
        parts.append("\n".join(f"- {line}" for line in judgement.found))
    return "\n\n".join(parts)


def _cell(judgement):
    if judgement.deciding == NOT_RUN:
        return NOT_RUN
    return f"**{judgement.verdict}**: {judgement.deciding}"


def _size(evaluation):
    scale, dataset = evaluation.scale, evaluation.runs[0].dataset
    return (
        f"VGG16 of width {scale.width} with {scale.fc_units:,} units in the hidden "
        f"fully connected layers, {dataset['train']:,} training and "
        f"{dataset['test']:,} test images of {style.setting('dataset', scale.dataset)}"
    )


def _machine(evaluation):
    """Name the machines in a sentence."""
    record = evaluation.runs[0].record
    device = "no GPU" if record["device"] == "CPU" else "with GPUs"
    found = dict.fromkeys(
        f"{each['cores']} cores of {each['cpu'] or 'an unknown CPU'}"
        for each in machine.read(evaluation.out)
    )
    name = "Machines" if len(found) > 1 else "Machine"
    return f"{name}: {' or '.join(found) or 'not recorded'}, {device}"
