"""Logging of the long-lived processes: one line a record, for people or as JSON."""

import contextvars
import logging
import sys
import time

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
container_id: contextvars.ContextVar[str] = contextvars.ContextVar("container_id", default="")


class _Human(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        where = "".join(f" {key}={value}" for key, value in _context() if value)
        level = record.levelname.lower()
        text = f"{stamp}.{int(record.msecs):03d}Z {level:7} {record.name}: {record.getMessage()}{where}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        import json  # noqa: PLC0415 (only where JSON logs are asked for)

        fields: dict[str, object] = {
            "time": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        fields.update((key, value) for key, value in _context() if value)
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def _context() -> tuple[tuple[str, str], ...]:
    return (("request", request_id.get()), ("container", container_id.get()))


def configure(*, level: str = "info", json_lines: bool = False) -> None:
    """Send the records of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if json_lines else _Human())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
