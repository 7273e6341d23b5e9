"""The console script of `pyengine-oci`, which somebody waits for: no collection of garbage while it loads.

msgspec asks for `typing_extensions`, does as well without, and where it is
installed spends a tenth of this program's start on it: so it finds none. At
the end the kernel takes everything back faster than the interpreter would.
"""

import gc
import os
import sys
from typing import TYPE_CHECKING, NoReturn, cast

if TYPE_CHECKING:
    from types import ModuleType

_UNWANTED = "typing_extensions"


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    gc.disable()
    sys.modules.setdefault(_UNWANTED, cast("ModuleType", None))  # as the import system has it: there is none
    from engine.runtime.main import main as run  # noqa: PLC0415 (see above)

    gc.freeze()
    gc.enable()
    code = run()
    try:
        sys.stdout.flush()
    except OSError:  # who took our output is gone, or the disk is full
        code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
