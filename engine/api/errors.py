"""The one table from engine errors to HTTP statuses, and docker's spelling of the texts."""

from http import HTTPStatus

from engine.api.framing import HeadTooLarge
from engine.api.http import BodyTooLarge, Response, json_response
from engine.base.errors import (
    Conflict,
    Denied,
    EngineError,
    InvalidArgument,
    NotFound,
    NotSupported,
    OutOfSpace,
    Unavailable,
)

STATUS: tuple[tuple[type[EngineError], HTTPStatus], ...] = (
    (HeadTooLarge, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (BodyTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (InvalidArgument, HTTPStatus.BAD_REQUEST),
    (NotFound, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (Denied, HTTPStatus.FORBIDDEN),
    (OutOfSpace, HTTPStatus.INSUFFICIENT_STORAGE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (NotSupported, HTTPStatus.NOT_IMPLEMENTED),
)

# Clients tell these apart by text: docker-py looks for "No such image", docker's CLI pulls on it.
_NOT_FOUND_TEXT = {
    "container": "No such container: {name}",
    "image": "No such image: {name}",
    "exec": "No such exec instance: {name}",
    "network": "network {name} not found",
    "volume": "get {name}: no such volume",
}


def status_of(err: BaseException) -> HTTPStatus:
    """Return the status for `err`; 500 for anything not raised on purpose."""
    for kind, status in STATUS:
        if isinstance(err, kind):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def text_of(err: BaseException) -> str:
    """Return the one line that the client shows."""
    if isinstance(err, NotFound) and err.kind in _NOT_FOUND_TEXT:
        return _NOT_FOUND_TEXT[err.kind].format(name=err.name)
    text = str(err) or type(err).__name__
    if isinstance(err, EngineError) and err.hint:
        text += f" ({err.hint})"
    return text


def error_response(err: BaseException) -> Response:
    """Return the answer for `err`."""
    return json_response({"message": text_of(err)}, status_of(err))
