"""What the command lines do."""

import os

# The commands write files. A notebook's backend, which its shell cells inherit, may not
# even be importable here.
os.environ["MPLBACKEND"] = "Agg"
