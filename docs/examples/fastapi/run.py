"""Two FastAPI services on uvicorn, with Redis and PostgreSQL.

The services run under `opentelemetry-instrument`, which turns tracesock on with the
instrumentations of FastAPI and httpx. Two requests are made: the first fills the cache. uvicorn is
told to use asyncio's own event loop: uvloop goes past Python's sockets.
"""

import json
import pathlib
import sys
import urllib.request
from contextlib import closing

import pg8000.dbapi

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

import observed  # noqa: E402


def uvicorn(application: str) -> list[str]:
    """The command of a service; {port} is filled in."""
    words = [observed.command("opentelemetry-instrument"), observed.command("uvicorn")]
    return [*words, "--loop", "asyncio", "--port", "{port}", application]


def fill(port: int) -> None:
    """The table of the items."""
    with closing(
        pg8000.dbapi.connect("shop", host="127.0.0.1", port=port, database="postgres")
    ) as db:
        cursor = db.cursor()
        cursor.execute("CREATE TABLE items (name text PRIMARY KEY, price integer NOT NULL)")
        cursor.execute("INSERT INTO items VALUES ('lamp', 1995), ('chair', 4950)")
        db.commit()


def example() -> None:
    """Start everything, ask twice, end everything, show the two traces."""
    with (
        observed.collecting() as collector,
        observed.redis_server() as redis,
        observed.postgres_server() as postgres,
    ):
        fill(postgres)
        with observed.service(uvicorn("stock:app"), HERE, collector.environment("stock")) as stock:
            settings = {
                "STOCK_URL": f"http://localhost:{stock}",
                "REDIS_URL": f"redis://localhost:{redis}",
                "POSTGRES_PORT": str(postgres),
            }
            environment = collector.environment("shop") | settings
            with observed.service(uvicorn("shop:app"), HERE, environment) as shop:
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                for _ in range(2):
                    with opener.open(f"http://127.0.0.1:{shop}/items/lamp") as response:
                        print(json.load(response), flush=True)
        collector.show()


if __name__ == "__main__":
    observed.main(example)
