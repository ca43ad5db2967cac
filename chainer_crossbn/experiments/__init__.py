"""The paper's evaluation: ``python -m chainer_crossbn experiments`` runs it.

To read it from the question to the answer:

1. :mod:`.definitions` has the experiments and the scales as data, and :mod:`.rules` the
   initial weights and learning rates that all runs share.
2. :mod:`.jobs` makes the command line of each run, and :mod:`.runner` runs what is
   missing.
3. :mod:`.results` reads the finished runs. :mod:`.claims` has each claim of the paper
   with its criterion, and judges it by what :mod:`.comparisons` compares.
4. :mod:`.report` writes verdicts, tables and figures.

:mod:`.search` chooses one rule. :mod:`.learning_rate_map` is a grid of learning rates:
:mod:`.map_choice` chooses two rules by it, and :mod:`.rules_by_claims` judges the
claims under every rule.

Everywhere, ``out`` is the directory that contains the runs, and ``scale`` their
:class:`.definitions.Scale`. Nothing here imports Chainer or MPI, except the
model of claim 7 (:mod:`.scaling`), which imports the table of VGG16's layers when it is
evaluated.
"""
