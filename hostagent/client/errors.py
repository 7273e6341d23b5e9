"""What can go wrong between this client and an engine."""

from engine.base.errors import EngineError, Unavailable


class ApiError(EngineError):
    """The engine answered with an error status.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, status: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Unreachable(Unavailable):
    """Nobody answers at the endpoint.

    Attributes:
        endpoint: the address as the user would write it.
    """

    def __init__(self, endpoint: str, reason: str, *, hint: str = "") -> None:
        super().__init__(f"cannot connect to the engine at {endpoint}: {reason}", hint=hint)
        self.endpoint = endpoint


class ConnectionLost(Unavailable):
    """The engine closed the connection, or sent no HTTP, in the middle of an answer."""
