"""Log lines as JSON objects, one a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import IO

__all__ = ["JsonLines", "log_to"]


_ENCODER = json.JSONEncoder(default=str)


class JsonLines(logging.Formatter):
    """time, level, logger and message; what was passed as extra={"said": {...}} stands beside them."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        said = getattr(record, "said", None)
        if isinstance(said, dict):
            line |= said
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _ENCODER.encode(line)


def log_to(stream: IO[str], level: int = logging.INFO) -> None:
    """Have everything logged as JSON lines to `stream`, in place of what was configured before."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
