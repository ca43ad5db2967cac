"""Run directories: :mod:`.run_directory` writes them, :mod:`.reading` reads them.

Nothing here imports Chainer, except :mod:`.weights`.
"""
