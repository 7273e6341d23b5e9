"""`python -m benchmarks` is `pyengine bench`."""

import sys

from hostagent.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["bench", *sys.argv[1:]]))
