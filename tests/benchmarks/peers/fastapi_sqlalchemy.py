"""FastAPI with SQLAlchemy's ORM, as FastAPI's own tutorial and template have it.

That is: a synchronous session for each request and endpoints that are plain functions, which FastAPI runs in threads;
the pool is SQLAlchemy's, with its default size.
"""

import os
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import credentials
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from schemas import PAGE_SIZE, Login, Page, Pair, Refresh, TransactionIn, links, pattern
from schemas import Transaction as TransactionOut
from sqlalchemy import URL, DateTime, ForeignKey, Numeric, create_engine, func, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

engine = create_engine(
    URL.create(
        "postgresql+psycopg",
        os.environ["POSTGRES_USER"],
        os.environ["POSTGRES_PASSWORD"],
        os.environ["POSTGRES_HOST"],
        int(os.environ["POSTGRES_PORT"]),
        os.environ["POSTGRES_DB"],
    )
)
SessionLocal = sessionmaker(engine)


class Base(DeclarativeBase):
    """The tables."""


class User(Base):
    """An account."""

    __tablename__ = "auth_user"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str]
    password: Mapped[str]
    is_active: Mapped[bool]


class Transaction(Base):
    """One movement of money."""

    __tablename__ = "transactions_transaction"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("auth_user.id"))
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    description: Mapped[str]
    timestamp: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class RefreshToken(Base):
    """A refresh token, spent or not."""

    __tablename__ = "refresh_token"

    jti: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("auth_user.id"))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    spent_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


app = FastAPI()


@app.exception_handler(credentials.NotAuthenticatedError)
async def not_authenticated(request: Request, error: Exception) -> JSONResponse:
    """Answer what no good token or password came with."""
    return JSONResponse({"detail": "Not authenticated"}, 401, {"WWW-Authenticate": "Bearer"})


def session() -> Iterator[Session]:
    """One session for the request."""
    with SessionLocal() as found:
        yield found


Database = Annotated[Session, Depends(session)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


def current_user(bearer: Bearer, database: Database) -> User:
    """Return the account that asks, which must still be active."""
    if bearer is None:
        raise credentials.NotAuthenticatedError
    user = database.get(User, int(credentials.read(bearer.credentials, "access")["user_id"]))
    if user is None or not user.is_active:
        raise credentials.NotAuthenticatedError
    return user


CurrentUser = Annotated[User, Depends(current_user)]


@app.get("/api/transactions/", response_model=Page)
def list_transactions(
    request: Request, database: Database, user: CurrentUser, page: Annotated[int, Query(ge=1)] = 1, search: str = ""
):
    """Return a page, newest first."""
    conditions = [Transaction.user_id == user.id]
    if search:
        conditions.append(Transaction.description.ilike(pattern(search)))
    count = database.scalar(select(func.count()).select_from(Transaction).where(*conditions))
    rows = database.scalars(
        select(Transaction)
        .where(*conditions)
        .order_by(Transaction.timestamp.desc(), Transaction.id.desc())
        .limit(PAGE_SIZE)
        .offset((page - 1) * PAGE_SIZE)
    ).all()
    following, previous = links(request.url, page, count)
    return {"count": count, "next": following, "previous": previous, "results": rows}


@app.get("/api/transactions/{number}/", response_model=TransactionOut)
def get_transaction(number: int, database: Database, user: CurrentUser):
    """Return one."""
    row = database.scalar(select(Transaction).where(Transaction.id == number, Transaction.user_id == user.id))
    if row is None:
        raise HTTPException(404)
    return row


@app.post("/api/transactions/", response_model=TransactionOut, status_code=201)
def create_transaction(body: TransactionIn, database: Database, user: CurrentUser):
    """Record one."""
    row = Transaction(user_id=user.id, amount=body.amount, description=body.description)
    database.add(row)
    database.commit()
    database.refresh(row)
    return row


def issue(database: Session, user: int) -> dict[str, str]:
    """Return a new pair, recorded."""
    jti, expires_at = credentials.new_refresh()
    database.add(RefreshToken(jti=jti, user_id=user, expires_at=expires_at))
    database.commit()
    return credentials.pair(user, jti)


@app.post("/auth/jwt/create/", response_model=Pair)
def login(body: Login, database: Database):
    """Exchange a password for a pair."""
    user = database.scalar(select(User).where(User.username == body.username, User.is_active))
    if user is None:
        raise credentials.NotAuthenticatedError
    credentials.check_password(body.password, user.password)
    return issue(database, user.id)


@app.post("/auth/jwt/refresh/", response_model=Pair)
def refresh(body: Refresh, database: Database):
    """Exchange a refresh token, once, for the next pair."""
    user = database.scalar(
        update(RefreshToken)
        .where(
            RefreshToken.jti == credentials.read(body.refresh, "refresh")["jti"],
            RefreshToken.spent_at.is_(None),
            RefreshToken.user_id == User.id,
            User.is_active,
        )
        .values(spent_at=func.now())
        .returning(RefreshToken.user_id)
    )
    if user is None:
        raise credentials.NotAuthenticatedError
    return issue(database, user)
