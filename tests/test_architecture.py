"""The house rules that a machine can hold: which way imports flow, and what stays out of the web process."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("data", "generate", "train", "compare", "export")
GROUND = ("conversation", "recipe", "events", "workspace", "jobs", "about", "render", "teacher", "machine")
FRONT_DOORS = ("__main__", "verbs", "verbs_data", "verbs_files", "verbs_give", "out", "work")
HEAVY = {"torch", "transformers", "peft", "trl", "datasets", "accelerate", "unsloth"}


def modules() -> dict[str, Path]:
    """Dotted name -> file, of everything that ships."""
    files = [*ROOT.glob("ft_core/**/*.py"), *ROOT.glob("ui/**/*.py"), ROOT / "app.py"]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def imports(name: str, path: Path) -> set[str]:
    """Dotted names that a file imports anywhere, inside functions too; relative ones are made absolute."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, *filter(None, [node.module])])
            found |= {f"{source}.{alias.name}" for alias in node.names} | {source}
    return found


GRAPH = {name: imports(name, path) for name, path in modules().items()}


def floor(name: str) -> int | None:
    """How high a module stands; it may import what stands lower. None for what is not ours."""
    parts = name.split(".")
    if parts[0] == "app":
        return 9
    if parts[0] == "ui":
        return 8
    if parts[0] != "ft_core" or len(parts) == 1:
        return None
    if parts[1] in ROOMS:
        return 2 + ROOMS.index(parts[1])
    if parts[1] in GROUND:
        return 1
    if parts[1] in FRONT_DOORS:
        return 8
    return 0 if parts[1] == "errors" else None


def test_every_module_has_its_floor() -> None:
    assert [n for n in GRAPH if n not in ("ft_core", "ui") and floor(n) is None] == []


@pytest.mark.parametrize("name", sorted(GRAPH))
def test_imports_flow_one_way(name: str) -> None:
    here = floor(name)
    if here is None:
        return
    upward = {i for i in GRAPH[name] if (there := floor(i)) is not None and there > here}
    assert upward == set()
    beside = {i for i in GRAPH[name] if name.startswith("ft_core") and i.startswith(("ui", "app."))}
    assert beside == set()


def test_no_import_cycles() -> None:
    ours = {n: {i for i in found if i in GRAPH and i != n} for n, found in GRAPH.items()}
    done: set[str] = set()

    def walk(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join([*way[way.index(name) :], name])
        if name not in done:
            for other in sorted(ours[name]):
                walk(other, (*way, name))
            done.add(name)

    for name in ours:
        walk(name, ())


def test_the_core_knows_no_widget() -> None:
    assert {n for n, found in GRAPH.items() if n.startswith("ft_core") and any("gradio" in i for i in found)} == set()


def test_the_page_and_the_ground_floor_load_nothing_heavy() -> None:
    light = [n for n in GRAPH if floor(n) in (0, 1) or n.startswith(("ui", "app"))]
    assert {n: h for n in light if (h := {i.split(".")[0] for i in GRAPH[n]} & HEAVY)} == {}


def test_the_ground_floor_loads_without_anything_heavy_behind_its_back() -> None:
    code = (
        f"import sys; import {', '.join(f'ft_core.{m}' for m in GROUND)}; print(sorted(set(sys.modules) & {HEAVY!r}))"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_jobs_never_imports_what_it_starts() -> None:
    assert {i for i in GRAPH["ft_core.jobs"] if i.startswith(tuple(f"ft_core.{room}" for room in ROOMS))} == set()


def test_no_work_at_import() -> None:
    """Module level holds definitions: no client, no environment check, no printing. app.py is the program itself."""
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.ClassDef,
        ast.Assign,
        ast.AnnAssign,
        ast.AsyncFunctionDef,
    )
    for name, path in modules().items():
        if name == "app":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            is_main = isinstance(node, ast.If) and ast.unparse(node.test) in (
                "__name__ == '__main__'",
                "TYPE_CHECKING",
            )
            assert isinstance(node, allowed) or is_text or is_main, f"{name}:{node.lineno}: {ast.unparse(node)[:80]}"


def _names(path: Path) -> set[str]:
    """What a file binds, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found.add(node.name)
            case ast.Name(ctx=ast.Store()):
                found.add(node.id)
            case ast.Import() | ast.ImportFrom():
                found |= {alias.asname or alias.name for alias in node.names}
    return found


def _asked_for(path: Path) -> set[tuple[str, str]]:
    """Of our modules what a file imports by absolute names, and what it asks of those that it imports whole."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found, whole = set(), {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if f"{node.module}.{alias.name}" in OURS:
                    whole[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                elif node.module.split(".")[0] in ("ft_core", "ui", "benchmarks"):
                    found.add((node.module, alias.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in whole:
            found.add((whole[node.value.id], node.attr))
    return found


BENCHMARKS = {f"benchmarks.{f.stem}".removesuffix(".__init__"): f for f in (ROOT / "benchmarks").glob("*.py")}
OURS = modules() | BENCHMARKS


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_what_benchmarks_ask_for_is_there(name: str) -> None:
    """They run for minutes, some on a GPU alone, and import as they go: no other test would miss a name."""
    assert {(m, a) for m, a in _asked_for(BENCHMARKS[name]) if m not in OURS or a not in _names(OURS[m])} == set()


BROAD = {"ft_core.work", "ft_core.__main__", "ui.errors"}


def test_only_the_last_resorts_catch_everything() -> None:
    """One that cleans up and raises again catches nothing."""
    caught = {
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and ast.unparse(node.body[-1]) != "raise"
    }
    assert caught <= BROAD


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    assert [p for p in modules().values() if p.stem in ("utils", "common", "helpers", "misc")] == []


def test_everything_that_is_imported_is_pinned() -> None:
    """Also what comes along with another package today."""
    names = {"yaml": "pyyaml", "huggingface_hub": "huggingface-hub", "spellchecker": "pyspellchecker"}
    outside = {i.split(".")[0] for found in GRAPH.values() for i in found} - set(sys.stdlib_module_names)
    files = (ROOT / "requirements.txt", ROOT / "space_config" / "requirements-gpu.txt")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    pinned = {re.split(r"[\[=]", line)[0] for line in lines if "==" in line}
    assert {names.get(n, n) for n in outside - {"ft_core", "ui", "app"}} <= pinned


def test_styles_for_some_windows_do_not_name_the_container_of_gradio() -> None:
    """It puts itself before every rule in @media, and such a rule would then hold nowhere (Gradio 6.31)."""
    found = {}
    for path in sorted((ROOT / "ui" / "static").glob("*.css")):
        for block in re.findall(r"@media[^{]*\{((?:[^{}]*\{[^{}]*\})*)\s*\}", path.read_text(encoding="utf-8")):
            found.setdefault(path.name, []).append(block)
    assert sum(map(len, found.values())) > 5
    assert [name for name, blocks in found.items() if any("gradio-container" in block for block in blocks)] == []
