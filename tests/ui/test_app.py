"""The app as a process: what it loads, how it starts, and what it gives to whom."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from ft_core.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
PAGE = "Roastery help desk"


def start(home: Path, **environment: str) -> tuple[subprocess.Popen, str]:
    """`python app.py`, and its address once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "FT_HOME": str(home), "PORT": str(port), "HOST": "127.0.0.1", **environment}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=5)
            return process, url
        except httpx.TransportError:
            assert process.poll() is None
            time.sleep(0.02)
    raise AssertionError("the app did not answer in a minute")


def end(process: subprocess.Popen) -> None:
    process.terminate()
    process.wait(20)


def test_it_starts_without_torch(with_builtin: Workspace) -> None:
    """How quickly is measured by `python -m benchmarks.start`."""
    process, url = start(with_builtin.home)
    try:
        mapped = {Path(m.path).name for m in psutil.Process(process.pid).memory_maps()}
        assert not {name for name in mapped if "torch" in name}
        assert "FT Flow" in httpx.get(url).text
    finally:
        end(process)


def test_nothing_heavy_is_imported() -> None:
    code = "import sys; from ui.start import fast_start; fast_start(); import app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "transformers", "peft", "trl", "datasets", "accelerate", "openai", "ollama", "xllamacpp"}
    assert heavy & set(loaded.split()) == set()
    assert "gradio" in loaded.split()


def test_the_fast_start_changes_no_file_and_does_no_harm_when_late() -> None:
    code = (
        "import gradio; from ui.start import fast_start; fast_start(); fast_start();"
        "import gradio.component_meta as m; assert m.create_or_modify_pyi.__name__ == 'create_or_modify_pyi'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


_FREED = """
import numpy, psutil
{first}
numpy.ones(30 << 20, "u1")  # once such a one is freed, glibc alone would no longer ask the system for smaller ones
arrays = [(numpy.ones(4 << 20, "u1"), bytes(2000)) for _ in range(50)]
held = [small for _, small in arrays]
before = psutil.Process().memory_info().rss
del arrays
print((before - psutil.Process().memory_info().rss) / 1e6)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_large_arrays_that_are_freed_go_back_to_the_system() -> None:
    code = _FREED.format(first="from ui.start import spare_memory; spare_memory()")
    freed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert float(freed) > 150


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory, builtin: Path) -> Iterator[str]:
    """The app with a Space's environment."""
    workspace = Workspace.at(tmp_path_factory.mktemp("space") / "home")
    workspace.builtin_model.symlink_to(builtin, target_is_directory=True)
    process, url = start(workspace.home, SPACE_ID="someone/ft-flow", SYSTEM="spaces")
    yield url
    end(process)


def visitor(url: str) -> httpx.Client:
    """A browser's cookie jar, over plain http as the test has it."""
    cookie = httpx.get(url).headers["set-cookie"].partition(";")[0]
    return httpx.Client(base_url=url, headers={"cookie": cookie})


def config(client: httpx.Client) -> dict:
    return client.get("/config").json()


def call(client: httpx.Client, fn: str, data: object, component: str = "grid") -> object:
    """A server function of the grid, or of another component, as its script calls it."""
    grid = next(c for c in config(client)["components"] if c["props"].get("elem_id") == component)
    body = {"data": data, "fn_name": fn, "component_id": grid["id"], "session_hash": "abc"}
    return client.post("/gradio_api/component_server", json=body).json()


def load(client: httpx.Client) -> None:
    """What the page does when it is opened."""
    event = next(d for d in config(client)["dependencies"] if any(t[1] == "load" for t in d["targets"]))
    data = {"data": [""], "fn_index": event["id"], "session_hash": "abc"}
    client.post("/gradio_api/run/predict", json=data, timeout=60).raise_for_status()


def test_five_tabs_on_a_space(space: str) -> None:
    labels = [c["props"]["label"] for c in config(visitor(space))["components"] if c["type"] == "tabitem"]
    assert labels == ["Generate", "Data", "Train", "Compare", "Export"]


def test_guests_of_a_space_see_their_own_rows_only(space: str) -> None:
    one, two = visitor(space), visitor(space)
    load(one)
    assert call(one, "rows", [PAGE, {"view": "all"}, 0, 10, ""])["total"] == 80
    for fn, arguments in (
        ("rows", [PAGE, {"view": "all"}, 0, 10, ""]),
        ("detail", [PAGE, 1, {"view": "all"}, 0]),
        ("seen_turns", [PAGE, 1, []]),
        ("save_turns", [PAGE, 1, 1, [{"role": "user", "content": "mine now"}], ""]),
        ("judge", [PAGE, 1, "rejected"]),
        ("delete_row", [PAGE, 1]),
        ("copy_row", [PAGE, 1]),
        ("write_anew", [PAGE, [], "", "1"]),
        ("stop_writing", [PAGE, "1"]),
        ("find_places", [PAGE, {"find": "a"}, {"query": {}}]),
        ("replace_places", [PAGE, {"find": "a", "put": "b"}, {"query": {}}]),
        ("list_versions", [PAGE, 10]),
        ("name_version", [PAGE, "mine"]),
        ("compare_versions", [PAGE, "mine", "", 0]),
        ("restore_version", [PAGE, "mine"]),
        ("edit", [PAGE, 1, 1, "prompt", "mine now"]),
        ("remove", [PAGE, {"ids": [1]}]),
        ("undo", [PAGE, None]),
    ):
        assert "no project" in call(two, fn, arguments)["error"], fn
    nobody = httpx.Client(base_url=space)
    assert "cookie" in call(nobody, "rows", [PAGE, {"view": "all"}, 0, 10, ""])["error"]
    assert call(one, "rows", [PAGE, {"view": "all"}, 0, 10, ""])["total"] == 80


def test_curves_of_a_space_go_to_their_owner_only(space: str) -> None:
    one, two = visitor(space), visitor(space)
    load(one)
    assert call(one, "chart_points", [PAGE, [], "loss"], "chart") == {"runs": {}}
    for fn, arguments in (("chart_points", [PAGE, [], "loss"]), ("chart_table", [PAGE, ["x"]])):
        assert "no project" in call(two, fn, arguments, "chart")["error"]


def test_files_of_a_space_go_to_their_owner_only(space: str) -> None:
    one, two = visitor(space), visitor(space)
    load(one)
    mine = one.get("/gradio_api/ft/rows", params={"project": PAGE, "as": "messages.jsonl"})
    assert mine.status_code == 200 and len(mine.text.splitlines()) == 80
    assert "attachment" in mine.headers["content-disposition"]
    assert two.get("/gradio_api/ft/rows", params={"project": PAGE, "as": "messages.jsonl"}).status_code == 404
    for name in ("recipe", "report"):
        assert two.get(f"/gradio_api/ft/{name}", params={"project": PAGE}).status_code == 404
    assert one.get("/gradio_api/ft/recipe", params={"project": PAGE}).status_code == 200
    for client, params in ((one, {"as": "../x"}), (one, {"project": "..", "as": "messages.jsonl"}), (two, {})):
        assert client.get("/gradio_api/ft/rows", params={"project": PAGE, **params}).status_code == 404
    for file in ("../../../data.sqlite", "/etc/passwd", ""):
        made = one.get("/gradio_api/ft/made", params={"project": PAGE, "job": "x", "file": file})
        assert made.status_code == 404
