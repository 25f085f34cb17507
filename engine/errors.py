"""Every error that leaves the engine.

    TallystickError
    ├── InvalidInput        a field of the caller's request is not acceptable; names the field
    ├── NotFound            no such thing for this caller (absent and foreign look the same)
    ├── Conflict            the thing exists in a state that forbids the request
    ├── Unauthenticated     the presented secret is not one of ours, or no longer
    ├── Forbidden           the presented secret is good, and may not do this
    ├── RateLimited         the presented secret was used too often
    ├── Unavailable         the engine cannot decide safely now; retry later
    └── CannotStart         the data directory, chain or settings do not fit together

A policy denial is not an error: it is a `Decision` with `allowed` false. Errors carry a stable
`code`; how a code is rendered (status, exit code) is the business of the edges.
"""

from collections.abc import Mapping
from typing import Any


class TallystickError(Exception):
    """Base class. `code` is stable; `details` may be shown to the caller."""

    code = "internal_error"

    def __init__(self, message: str, *, code: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code
        self.details: Mapping[str, Any] = details


class InvalidInput(TallystickError):
    """A request field is unacceptable. `field` is its name as the caller wrote it."""

    code = "invalid_parameter"

    def __init__(self, field: str, message: str, *, code: str | None = None) -> None:
        super().__init__(f"{field}: {message}", code=code, field=field)
        self.field = field


class NotFound(TallystickError):
    """Nothing of that id is visible to this caller."""

    code = "not_found"


class Conflict(TallystickError):
    """The request contradicts the present state."""

    code = "conflict"


class Unauthenticated(TallystickError):
    """No valid secret was presented."""

    code = "invalid_api_key"


class Forbidden(TallystickError):
    """The presented secret is valid, but not for this."""

    code = "not_allowed"


class RateLimited(TallystickError):
    """Too many requests with one secret. `retry_after` is in seconds, one at least."""

    code = "rate_limit_exceeded"

    def __init__(self, message: str, *, retry_after: int, **details: Any) -> None:
        super().__init__(message, retry_after=retry_after, **details)
        self.retry_after = retry_after


class Unavailable(TallystickError):
    """Fail closed: the engine is in doubt about its clock, database, chain or log."""

    code = "service_unavailable"


class CannotStart(TallystickError):
    """Start-up was refused; the message says what to change. Nothing was written."""

    code = "cannot_start"
