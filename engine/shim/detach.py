"""The key sequence with which a person leaves a terminal and the container runs on.

Keys that may be the beginning of the sequence are held back until it is
known, as docker does.
"""


class DetachKeys:
    """Looks for one sequence in a stream of input."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Return the input to pass on, and whether the sequence is complete.

        What follows a complete sequence is dropped.
        """
        if not self._keys:
            return data, False
        data = self._held + data
        at = data.find(self._keys)
        if at >= 0:
            self._held = b""
            return data[:at], True
        keep = self._beginning_bytes(data)
        self._held = data[len(data) - keep :]
        return data[: len(data) - keep], False

    def _beginning_bytes(self, data: bytes) -> int:
        for size in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:size]):
                return size
        return 0
