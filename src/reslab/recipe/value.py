"""Base class of all parts of recipes and records: an immutable value that refuses unknown fields."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from reslab.errors import did_you_mean, show
from reslab.words import is_text

Fraction = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """A frozen piece of a recipe; unknown fields and non-finite numbers are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _has_only_known_fields(cls, content: Any) -> Any:
        # Before anything else, since a misspelled field would be reported as a missing one.
        for name in content if isinstance(content, dict) else ():
            if name not in cls.model_fields:
                hint = did_you_mean(str(name), cls.model_fields, otherwise="")
                raise PydanticCustomError("unknown_field", "{name} is not a known field", {"name": name, "hint": hint})
        return content

    @model_validator(mode="before")
    @classmethod
    def _holds_what_it_seems_to(cls, content: Any) -> Any:
        # Pydantic accepts true for 1, and text that cannot be encoded in UTF-8.
        for name, value in content.items() if isinstance(content, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields and cls.model_fields[name].annotation is not bool:
                raise ValueError(f"{name} cannot be {show(value)}")
            if isinstance(value, str) and not is_text(value):
                raise ValueError(f"{name} holds text that is not valid Unicode: {show(value)}")
        return content
