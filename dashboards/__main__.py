"""Render what is made of code: the dashboards' JSON, the detections' SQL, the tables of README.md.

python -m dashboards            write what has changed
python -m dashboards --check    write nothing; status 1 and the files that are not current
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dashboards import detections, grafana, readme

ROOT = Path(__file__).parent


def rendered() -> dict[Path, str]:
    """The text of each file that is made of code."""
    files = {ROOT / "grafana" / "json" / name: text for name, text in grafana.render().items()}
    files |= {
        ROOT / "detections" / "sql" / name: text for name, text in detections.render().items()
    }
    files[ROOT / "README.md"] = readme.render((ROOT / "README.md").read_text())
    return files


def stale(files: dict[Path, str]) -> list[Path]:
    """Those that are not on disk as they should be, and those that should not be there."""
    wrong = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    made = (ROOT / "grafana" / "json", ROOT / "detections" / "sql")
    return wrong + [path for folder in made for path in folder.iterdir() if path not in files]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m dashboards", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    files = rendered()
    wrong = stale(files)
    for path in wrong:
        if arguments.check:
            print(f"not current: {path.relative_to(ROOT.parent)}")
        elif path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
        else:
            path.unlink()
    return int(arguments.check and bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
