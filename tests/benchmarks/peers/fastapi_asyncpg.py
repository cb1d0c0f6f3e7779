"""FastAPI with asyncpg and SQL by hand: the driver's pool, one connection a request, statements prepared by the driver.

Endpoints are coroutines; the response models are Pydantic's, as FastAPI's documentation has them.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import asyncpg
import credentials
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from schemas import PAGE_SIZE, Login, Page, Pair, Refresh, Transaction, TransactionIn, links, pattern


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep connections for as long as the application runs."""
    async with asyncpg.create_pool(
        host=os.environ["POSTGRES_HOST"],
        port=int(os.environ["POSTGRES_PORT"]),
        database=os.environ["POSTGRES_DB"],
        user=os.environ["POSTGRES_USER"],
        password=os.environ["POSTGRES_PASSWORD"],
    ) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(credentials.NotAuthenticatedError)
async def not_authenticated(request: Request, error: Exception) -> JSONResponse:
    """Answer what no good token or password came with."""
    return JSONResponse({"detail": "Not authenticated"}, 401, {"WWW-Authenticate": "Bearer"})


async def connection(request: Request) -> AsyncIterator[asyncpg.Connection]:
    """One connection for the request."""
    async with request.app.state.pool.acquire() as found:
        yield found


Connection = Annotated[asyncpg.Connection, Depends(connection)]
Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


async def current_user(bearer: Bearer, database: Connection) -> int:
    """Return the account that asks, which must still be active."""
    if bearer is None:
        raise credentials.NotAuthenticatedError
    user = int(credentials.read(bearer.credentials, "access")["user_id"])
    if not await database.fetchval("SELECT is_active FROM auth_user WHERE id = $1", user):
        raise credentials.NotAuthenticatedError
    return user


User = Annotated[int, Depends(current_user)]
COLUMNS = "id, user_id, amount, description, timestamp"


@app.get("/api/transactions/", response_model=Page)
async def list_transactions(
    request: Request, database: Connection, user: User, page: Annotated[int, Query(ge=1)] = 1, search: str = ""
):
    """Return a page, newest first."""
    condition, parameters = "user_id = $1", [user]
    if search:
        condition, parameters = f"{condition} AND description ILIKE $2", [user, pattern(search)]
    count = await database.fetchval(f"SELECT count(*) FROM transactions_transaction WHERE {condition}", *parameters)
    rows = await database.fetch(
        f"SELECT {COLUMNS} FROM transactions_transaction WHERE {condition} ORDER BY timestamp DESC, id DESC"
        f" LIMIT {PAGE_SIZE} OFFSET {(page - 1) * PAGE_SIZE}",
        *parameters,
    )
    following, previous = links(request.url, page, count)
    return {"count": count, "next": following, "previous": previous, "results": [dict(row) for row in rows]}


@app.get("/api/transactions/{number}/", response_model=Transaction)
async def get_transaction(number: int, database: Connection, user: User):
    """Return one."""
    row = await database.fetchrow(
        f"SELECT {COLUMNS} FROM transactions_transaction WHERE id = $1 AND user_id = $2", number, user
    )
    if row is None:
        raise HTTPException(404)
    return dict(row)


@app.post("/api/transactions/", response_model=Transaction, status_code=201)
async def create_transaction(body: TransactionIn, database: Connection, user: User):
    """Record one."""
    row = await database.fetchrow(
        "INSERT INTO transactions_transaction (user_id, amount, description, timestamp) VALUES ($1, $2, $3, now())"
        f" RETURNING {COLUMNS}",
        user,
        body.amount,
        body.description,
    )
    return dict(row)


@app.post("/auth/jwt/create/", response_model=Pair)
async def login(body: Login, database: Connection):
    """Exchange a password for a pair."""
    row = await database.fetchrow("SELECT id, password FROM auth_user WHERE username = $1 AND is_active", body.username)
    if row is None:
        raise credentials.NotAuthenticatedError
    await asyncio.to_thread(credentials.check_password, body.password, row["password"])
    jti, expires_at = credentials.new_refresh()
    await database.execute(
        "INSERT INTO refresh_token (jti, user_id, expires_at) VALUES ($1, $2, $3)", jti, row["id"], expires_at
    )
    return credentials.pair(row["id"], jti)


@app.post("/auth/jwt/refresh/", response_model=Pair)
async def refresh(body: Refresh, database: Connection):
    """Exchange a refresh token, once, for the next pair."""
    spent = credentials.read(body.refresh, "refresh")["jti"]
    async with database.transaction():
        user = await database.fetchval(
            "UPDATE refresh_token SET spent_at = now() FROM auth_user"
            " WHERE jti = $1 AND spent_at IS NULL AND auth_user.id = user_id AND is_active RETURNING user_id",
            spent,
        )
        if user is None:
            raise credentials.NotAuthenticatedError
        jti, expires_at = credentials.new_refresh()
        await database.execute(
            "INSERT INTO refresh_token (jti, user_id, expires_at) VALUES ($1, $2, $3)", jti, user, expires_at
        )
    return credentials.pair(user, jti)
