"""The service that counts what is in stock."""

from fastapi import FastAPI

app = FastAPI()
COUNTS = {"lamp": 3, "chair": 12}


@app.get("/stock/{item}")
async def count(item: str) -> dict[str, int]:
    """How many there are."""
    return {"count": COUNTS.get(item, 0)}
