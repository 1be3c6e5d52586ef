"""Typed documents: the JSON files that one step hands to another.

A document is a frozen pydantic model. It is written by `to_json` and read by `parse`, and by nothing else. Its field
`schema_version` counts up when its fields change, so that a document of another version is refused in one clear line.
"""

import json
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from steps.common.errors import StepError


class Part(BaseModel):
    """A part of a document: frozen, and with no fields beside the declared ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Document(Part):
    """A whole JSON file.

    Subclasses declare `schema_version: Literal[N] = N` and the name of the step that writes the file.
    """

    written_by: ClassVar[str]

    def to_json(self) -> str:
        """Return the document as indented JSON text. A float that is not a number becomes null."""
        return json.dumps(json.loads(self.model_dump_json()), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read a document.

        Args:
            text: the JSON text.
            name: the file, as the user knows it, for errors.

        Raises:
            StepError: the text is not such a document; the line names the file and the first wrong field.
        """
        again = f"run {cls.written_by} again"
        try:
            content: Any = json.loads(text)
        except ValueError as error:
            raise StepError(f"{name} is not JSON ({error}): {again}") from None
        found = content.get("schema_version") if isinstance(content, dict) else None
        expected = cls.model_fields["schema_version"].default
        if found != expected:
            raise StepError(f"{name} has schema_version {found}; this version of the project reads {expected}: {again}")
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise StepError(f"{name} is damaged, field {field}: {first['msg']}: {again}") from None
