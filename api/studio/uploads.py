"""A form that brings a file (RFC 7578), as long as the server's limit of bodies lets it be."""

from dataclasses import dataclass
from typing import Self

from starlette.exceptions import HTTPException
from starlette.requests import Request

from engine.errors import InvalidInput

FILE_BYTES_MAX = 4 * 2**20
FORM_BYTES_MAX = FILE_BYTES_MAX + 65_536
"""With what else the form says."""
FIELDS_MAX = 4
NAME_CHARACTERS_MAX = 200


@dataclass(frozen=True, slots=True)
class Upload:
    """The fields of the form, and the file as its browser calls it."""

    fields: dict[str, str]
    name: str
    content: bytes

    @classmethod
    async def read(cls, request: Request, field: str) -> Self:
        """Read the form of a request, with one file in `field`.

        Raises:
            InvalidInput: it is no such form, or no file was chosen.
        """
        try:
            async with request.form(max_files=1, max_fields=FIELDS_MAX) as form:
                texts = {name: text for name, text in form.items() if isinstance(text, str)}
                file = form.get(field)
                if file is None or isinstance(file, str) or not file.filename:
                    raise InvalidInput(field, "choose a file")
                return cls(texts, file.filename[-NAME_CHARACTERS_MAX:], await file.read())
        except HTTPException as error:
            raise InvalidInput("form", "cannot be read") from error
