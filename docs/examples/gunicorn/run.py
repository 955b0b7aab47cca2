"""A gunicorn service with two sync workers, and Redis: `python docs/examples/gunicorn/run.py`.

gunicorn runs under `tracesock run`: its master forks the workers, and each tells of its own
requests. What the master prepares before it forks is told once.
"""

import pathlib
import sys
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent))

import observed  # noqa: E402

REQUESTS = 4


def example() -> None:
    """Start everything, ask, end everything, show the traces."""
    gunicorn = [sys.executable, "-m", "tracesock", "run", observed.command("gunicorn")]
    gunicorn += ["--workers", "2", "--bind", "127.0.0.1:{port}", "--log-level", "warning"]
    with observed.collecting() as collector, observed.redis_server() as redis:
        words = [sys.executable, "greeting.py", "{port}"]
        with observed.service(words, HERE, {}) as greeting:
            settings = {
                "REDIS_URL": f"redis://localhost:{redis}",
                "GREETING_URL": f"http://localhost:{greeting}",
            }
            environment = collector.environment("visitors") | settings
            with observed.service([*gunicorn, "app:application"], HERE, environment) as port:
                opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
                for _ in range(REQUESTS):
                    with opener.open(f"http://127.0.0.1:{port}/") as response:
                        print(response.read().decode(), end="", flush=True)
        collector.show()


if __name__ == "__main__":
    observed.main(example)
