"""Times of iterations by ranks, and the paper's claim 7, from profiled runs.

``python -m chainer_crossbn scaling PATH...`` reads runs (:mod:`.observations`),
estimates how unevenly the ranks compute (:mod:`.skew`), evaluates a model of the
paper's machine (:mod:`.tsubame_kfc`), judges the claim by it (:mod:`.claim7`), and
writes a report (:mod:`.report`).
"""
