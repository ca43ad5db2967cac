"""On the path of a test's processes, as if Numba were not installed."""

import sys

sys.modules["numba"] = None
