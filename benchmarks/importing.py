"""Import of alpaca rows into a store, against pandas reading the same file: `python -m benchmarks.importing`.

Each figure is of a process of its own. pandas (read_json, read_csv) is the peer that everybody has; it only parses
into memory, while an import checks each row, keeps it on disk and can be undone. Peak memory is the whole process, and
own_mb of it was there before a row was read. Seconds are wall clock, with the processor's beside them, because other
work on the machine makes the former longer.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = (100_000, 1_000_000)


def write_rows(path: Path, rows: int) -> None:
    columns = ("instruction", "input", "output")
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        if path.suffix == ".csv":
            table.writerow(columns)
        for i in range(rows):
            said = f"The number {i} is what you get when you count that far. " * (4 + i % 5)
            row = (f"Explain what number {i} is, in one short sentence for a child.", "", said)
            if path.suffix == ".csv":
                table.writerow(row)
            else:
                file.write(json.dumps(dict(zip(columns, row))) + "\n")


def ours(path: Path) -> int:
    from ft_core.data import formats
    from ft_core.data.store import Store

    with tempfile.TemporaryDirectory(dir=path.parent) as folder, Store(Path(folder) / "data.sqlite") as store:
        return formats.import_files(store, [path]).added


def with_pandas(path: Path) -> int:
    import pandas

    return len(pandas.read_csv(path) if path.suffix == ".csv" else pandas.read_json(path, lines=True))


WAYS = {"import": ours, "pandas": with_pandas}


def _measured(way: str, path: Path) -> None:
    """In a child: prints what it took."""
    if way == "import":
        import ft_core.data.formats  # noqa: F401
    else:
        import pandas  # noqa: F401
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, worked = time.perf_counter(), time.process_time()
    rows = WAYS[way](path)
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps({"rows": rows, "s": seconds, "cpu_s": processor, "peak_mb": peak / 1024, "own_mb": before / 1024})
    )


def _figures(way: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.importing", "--child", way, str(path)]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = json.loads(said.splitlines()[-1])
    found["rows_s"] = found["rows"] / found["s"]
    found["mb_s"] = path.stat().st_size / 1e6 / found["s"]
    return {name: round(value, 1) for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS), help="default: %(default)s")
    parser.add_argument("--child", nargs=2, metavar=("WAY", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _measured(arguments.child[0], Path(arguments.child[1]))
        return
    figures: dict[str, dict[str, float]] = {}
    print(f"{'':24}{'s':>8}{'cpu s':>8}{'rows/s':>10}{'MB/s':>8}{'peak MB':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".jsonl", ".csv"):
            for rows in arguments.rows:
                path = Path(folder) / f"rows{suffix}"
                write_rows(path, rows)
                for way in WAYS:
                    name = f"{way}_{suffix[1:]}_{rows}"
                    f = figures[name] = _figures(way, path)
                    numbers = f"{f['s']:8.1f}{f['cpu_s']:8.1f}{f['rows_s']:10,.0f}{f['mb_s']:8.1f}{f['peak_mb']:10.0f}"
                    print(f"{name:24}{numbers}", flush=True)
    few, many = (figures[f"import_jsonl_{rows}"]["peak_mb"] for rows in (arguments.rows[0], arguments.rows[-1]))
    print(json.dumps({**figures, "memory_ratio": round(many / few, 3)}))


if __name__ == "__main__":
    main()
