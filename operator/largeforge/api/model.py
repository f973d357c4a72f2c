"""The base of all models, and the bounded strings that they share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Model(BaseModel):
    """A part of a resource as the API server hands it out: validated there, so unknown fields are let through unseen.

    A newer CRD must not break an older operator during a rollback, hence `extra="ignore"`.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def manifest(self) -> dict[str, Any]:
        """The camelCase JSON form, without what was left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StrictModel(Model):
    """A file that only our own processes write: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid")


def rules(*validations: tuple[str, str]) -> ConfigDict:
    """The model configuration that carries CEL rules, each a (rule, message) pair; the message names the remedy."""
    return ConfigDict(
        json_schema_extra={"x-kubernetes-validations": [{"rule": r, "message": m} for r, m in validations]},
    )


ObjectName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
"""The name of an object in the same namespace."""

LargeForgeName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
"""The name of one of our four kinds: short enough that every derived name fits 63 characters uncut."""

SubdomainName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
"""The name of a Secret or a service account, which may have dots."""

_LABEL_KEY = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"


def keys_rule(field: str) -> tuple[str, str]:
    """The CEL rule that the keys of the map *field* are those of labels: a schema says nothing of keys."""
    said = f"{field}: a key has letters, digits, '-', '_' and '.', perhaps after a domain and '/'"
    return f"!has(self.{field}) || self.{field}.all(k, k.matches('{_LABEL_KEY}'))", said


LabelKey = Annotated[str, Field(min_length=1, max_length=316)]
LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
SecretKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""An entry of a Secret."""
Quantity = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?([EPTGMk]i?|m)?$")]
"""A resource quantity such as `500m`, `2` or `16Gi`."""
