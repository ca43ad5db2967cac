"""The paper's evaluation: ``python -m chainer_crossbn experiments`` runs it.

What is run is data: :mod:`.definitions` has the experiments and the scales, and
:mod:`.rule` the initial weights and learning rates that all of them share, which
:mod:`.search` chooses. :mod:`.jobs` makes one command line of each run, :mod:`.records`
tells what is there of it, :mod:`.costs` how long it takes, and :mod:`.runner` runs what
is missing, and :mod:`.machine` notes on which machine. :mod:`.scale_rules` tells the
rules of a scale, and :mod:`.evaluation` has the finished runs under each, which
:mod:`.results` reads. :mod:`.claims` judges the paper's claims, by what
:mod:`.comparisons` compares; :mod:`.tables` and :mod:`.figures` show the runs,
:mod:`.summary` the verdicts, and :mod:`.report` writes it all down.
:mod:`.learning_rate_map` runs and reads a grid of learning rates, in which
:mod:`.rule_paths` finds the rules for the learning rate; :mod:`.rules_by_claims` judges
the claims under each of them, :mod:`.chosen_rules` chooses two by accuracy alone, and
:mod:`.map_figures` and :mod:`.map_report` show it.
Nothing here imports Chainer or MPI, but for the model of claim 7 (:mod:`.scaling`),
which imports the table of VGG16's layers when it is evaluated.
"""
