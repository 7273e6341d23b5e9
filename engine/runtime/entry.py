"""The start of `pyengine-oci`, which somebody waits for: no collection of garbage while it loads.

Verbs that enter a container run from an image of the interpreter that cannot be written (`ownimage`). So the
first image does nothing but that, and imports nothing else, `typing` included. The second has libraries
without what they would import in vain (`lean`). At the end the kernel takes everything back faster than the
interpreter would.
"""

import gc
import os
import sys

TYPE_CHECKING = False  # as typing has it
if TYPE_CHECKING:
    from typing import NoReturn

_ENTERING = frozenset(("create", "run", "exec"))
_AGAIN = (
    "import sys; found = int(sys.argv[1]) + 2; sys.path += sys.argv[2:found]; del sys.argv[1:found]; "
    "from engine.runtime.entry import main; main()"
)


def main() -> "NoReturn":
    """Run the command line of this process and end it."""
    gc.disable()
    if not _ENTERING.isdisjoint(sys.argv[1:]):  # which of the words is the verb its parser will know
        _protect()
    from engine.runtime import lean  # noqa: PLC0415 (see above)

    lean.load()
    from engine.runtime.main import main as run  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    code = run()
    try:
        sys.stdout.flush()
    except OSError:  # who took our output is gone, or the disk is full
        code = code or 1
    os._exit(code)


def _protect() -> None:
    """Go on from a protected image, with the modules of this one."""
    from engine.runtime import ownimage  # noqa: PLC0415 (only what enters a container needs it)

    places = [os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), *sys.path]
    options = ["-I", "-S", *(["-B"] if sys.dont_write_bytecode else [])]
    words = ["-c", _AGAIN, str(len(places)), *places, *sys.argv[1:]]
    try:
        ownimage.protect([sys.executable, *options, *words])
    except OSError as err:
        reason = (err.strerror or str(err)).lower()
        sys.stderr.write(f"pyengine-oci: cannot protect {sys.executable} from the container: {reason}\n")
        os._exit(1)


if __name__ == "__main__":
    main()
