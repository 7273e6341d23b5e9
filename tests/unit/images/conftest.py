"""The recipe is a folder of scripts, not a package: they import one another as `build.py` does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "images" / "vm"))
