"""A shop's service: prices from PostgreSQL, kept in Redis; stock from another service.

Nothing in it knows of tracesock.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pg8000.dbapi
import redis.asyncio
from fastapi import FastAPI, HTTPException
from starlette.concurrency import run_in_threadpool


@asynccontextmanager
async def clients(app: FastAPI) -> AsyncIterator[None]:
    """The clients that the requests share."""
    async with (
        httpx.AsyncClient(base_url=os.environ["STOCK_URL"], trust_env=False) as app.state.stock,
        redis.asyncio.from_url(os.environ["REDIS_URL"]) as app.state.cache,
    ):
        yield


app = FastAPI(lifespan=clients)


def price_of(item: str) -> int | None:
    """The price in the database, in cents."""
    connection = pg8000.dbapi.connect(
        "shop", host="localhost", port=int(os.environ["POSTGRES_PORT"]), database="postgres"
    )
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT price FROM items WHERE name = %s", (item,))
        row = cursor.fetchone()
        return None if row is None else row[0]
    finally:
        connection.close()


@app.get("/items/{item}")
async def show(item: str) -> dict[str, str | int]:
    """What an item costs, and how many there are."""
    price = await app.state.cache.get(f"price:{item}")
    if price is None:
        price = await run_in_threadpool(price_of, item)
        if price is None:
            raise HTTPException(404, f"no such item: {item}")
        await app.state.cache.set(f"price:{item}", price)
    stock = await app.state.stock.get(f"/stock/{item}")
    return {"item": item, "price": int(price), "stock": stock.raise_for_status().json()["count"]}
