"""The opening of the report, and the judgement of each claim, in Markdown."""

import textwrap

from chainer_crossbn.experiments import machine
from chainer_crossbn.experiments.claims import NOT_RUN, Claim, Judgement, judge_claims
from chainer_crossbn.experiments.results import Evaluation
from chainer_crossbn.plotting import style
from chainer_crossbn.text_tables import markdown

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
    "are medians over the seeds. A difference is the median of the differences "
    "between two runs with the same seed, in points. Two accuracies differ if it "
    "reaches the margin."
)
_SAME = "(the same)"

Judged = dict[Claim, dict[str, Judgement]]


def opening(evaluation: Evaluation) -> str:
    """Return a paragraph that says what was run."""
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


def table(evaluation: Evaluation, judged: Judged) -> str:
    """Return a table with the verdict on each claim, and how to read it.

    Args:
        evaluation (Evaluation): The finished runs.
        judged (dict): As :func:`.claims.judge_claims` returns it.
    """
    several = len(evaluation.rules) > 1
    head = ("claim", "the paper", "verdict", "the number that decides")
    if several:
        head = ("claim", "the paper", *(f"{name} rule" for name in evaluation.rules))
    quick = evaluation.quick_check and judge_claims(evaluation.quick_check)
    head += ("quick check",) if quick else ()
    rows = []
    for claim, by_rule in judged.items():
        first, *others = [by_rule.get(name) for name in evaluation.rules]
        if several:
            same = (None, first)
            cells = [_cell(first)]
            cells += [_SAME if each in same else _cell(each) for each in others]
        else:
            cells = [f"**{first.verdict}**", first.deciding]
        if quick:
            (judgement,) = quick[claim].values()
            was_run = judgement.deciding != NOT_RUN
            cells.append(judgement.verdict if was_run else NOT_RUN)
        rows.append((claim.number, claim.paper, *cells))
    return f"{markdown(head, rows)}\n\n{textwrap.fill(_NUMBERS, _WIDTH)}"


def judgements(judged: Judged) -> str:
    """Return a section for each claim, with its criterion and all numbers.

    Args:
        judged (dict): As :func:`.claims.judge_claims` returns it.
    """
    return "\n\n".join(_section(claim, by_rule) for claim, by_rule in judged.items())


def _section(claim, by_rule):
    verdicts = {judgement.verdict for judgement in by_rule.values()}
    verdict = ", ".join(f"{j.verdict} ({name} rule)" for name, j in by_rule.items())
    if len(verdicts) == 1:
        (verdict,) = verdicts
    parts = [
        f"### Claim {claim.number}: {verdict}",
        f"The paper: {claim.paper}.",
        f"Criterion: {claim.criterion}",
    ]
    differ = len(set(by_rule.values())) > 1
    for name, judgement in [*by_rule.items()][: None if differ else 1]:
        if differ:
            parts.append(f"{name.capitalize()} rule: **{judgement.verdict}**")
        parts.append("\n".join(f"- {line}" for line in judgement.numbers))
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
    """Return a sentence that names the machines."""
    record = evaluation.runs[0].record
    device = "no GPU" if record["device"] == "CPU" else "with GPUs"
    names = dict.fromkeys(
        f"{each['cores']} cores of {each['cpu'] or 'an unknown CPU'}"
        for each in machine.read(evaluation.out)
    )
    noun = "Machines" if len(names) > 1 else "Machine"
    return f"{noun}: {' or '.join(names) or 'not recorded'}, {device}"
