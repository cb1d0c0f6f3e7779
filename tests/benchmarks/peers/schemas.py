"""The wire format of the FastAPI peers."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Amount = Annotated[Decimal, Field(max_digits=10, decimal_places=2)]


class TransactionIn(BaseModel):
    """What a client sends."""

    amount: Amount
    description: Annotated[str, Field(min_length=1, max_length=255)]


class Transaction(BaseModel):
    """What a client gets."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    user: int = Field(validation_alias="user_id")
    amount: Decimal
    description: str
    timestamp: datetime


class Page(BaseModel):
    """Ten transactions and how many there are."""

    count: int
    next: str | None
    previous: str | None
    results: list[Transaction]


class Login(BaseModel):
    """A name and a password."""

    username: str
    password: str


class Refresh(BaseModel):
    """A refresh token."""

    refresh: str


class Pair(BaseModel):
    """The tokens of a login."""

    refresh: str
    access: str


PAGE_SIZE = 10


def links(url, page: int, count: int) -> tuple[str | None, str | None]:
    """Return the addresses of the next and the previous page; ``url`` is Starlette's."""
    following = str(url.include_query_params(page=page + 1)) if page * PAGE_SIZE < count else None
    previous = None
    if page > 1:
        previous = str(url.include_query_params(page=page - 1) if page > 2 else url.remove_query_params("page"))
    return following, previous


def pattern(words: str) -> str:
    """Return the LIKE pattern for a search."""
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
