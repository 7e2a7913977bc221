"""From the start of the process to the first page served: FT Flow against the same app without its fast start.

    python -m benchmarks.start [--rounds 5]

The first start of a home installs the example and is not counted. Both ways run alternately, medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLAIN = "import ui.start; ui.start.fast_start = lambda: None; import app; app.main()"


def seconds_to_first_page(command: list[str], home: str) -> float:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "FT_HOME": home, "PORT": str(port)}
    began = time.monotonic()
    app = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as page:
                    page.read()
                return time.monotonic() - began
            except (urllib.error.URLError, ConnectionError):
                if app.poll() is not None:
                    raise SystemExit("the app ended before it answered") from None
                time.sleep(0.01)
    finally:
        app.terminate()
        app.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    ways = {"FT Flow": [sys.executable, "app.py"], "without fast start": [sys.executable, "-c", PLAIN]}
    found: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "cache" / "smollm2-135m-instruct").mkdir(parents=True)  # so that nothing is prepared beside it
        seconds_to_first_page(ways["FT Flow"], home)
        for _ in range(rounds):
            for name, command in ways.items():
                found[name].append(seconds_to_first_page(command, home))
    medians = {name: statistics.median(times) for name, times in found.items()}
    for name, times in found.items():
        print(f"{name:<20} median {medians[name]:.2f} s   {min(times):.2f} to {max(times):.2f}")
    ours, plain = medians.values()
    print(json.dumps({"start_s": round(ours, 3), "plain_s": round(plain, 3), "ratio": round(ours / plain, 3)}))


if __name__ == "__main__":
    main()
