"""A 16-bit GGUF in fewer bits, by llama.cpp's own kernels and its own choice of what is stored how.

The kernels are exported by the library inside xllamacpp, so nothing has to be compiled. Which tensor gets which type
is llama.cpp's mixture (src/llama-quant.cpp, MIT, see NOTICE); `make oracle` compares the bytes.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from ..machine import this_machine

BASE = {"Q8_0": Type.Q8_0, "Q6_K": Type.Q6_K, "Q5_K_M": Type.Q5_K, "Q4_K_M": Type.Q4_K}
_NARROW = {Type.Q4_K: Type.Q5_0, Type.Q5_K: Type.Q5_1, Type.Q6_K: Type.Q8_0}
"""What a matrix gets whose width is no multiple of the 256 that K types go by."""
_CHUNK = 2**22
"""Weights that a thread works on at a time; 16 MB of float32."""


def fits_k_types(width: int) -> bool:
    """Whether K types can store a model of this width. If not, most matrices fall back to other types, and a file of 4
    or 5 bits is both larger and worse than its name promises."""
    return width % _block(Type.Q4_K) == 0


def quantize(source: Path, path: Path, type_: str) -> Iterator[float]:
    """Writes the F16 GGUF `source` to `path` as `type_`, a key of BASE. Yields the share done, by weights.

    Dense models only: mixtures of experts have rules of their own. One tensor is in memory at a time.
    """
    reader = gguf.GGUFReader(source)
    tensors = {t.name: t for t in sorted(reader.tensors, key=lambda t: _place(t.name))}
    types = _mixture({name: [int(n) for n in t.shape] for name, t in tensors.items()}, type_)
    writer = gguf.GGUFWriter(path, reader.fields["general.architecture"].contents())
    _copy_metadata(reader, writer)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{type_}"])
    for name, tensor in tensors.items():
        _announce(writer, tensor, types.get(name, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    kernels, threads = _kernels(), this_machine().cores
    done, total = 0, sum(t.n_elements for t in reader.tensors)
    with ThreadPoolExecutor(threads) as pool:
        for name, tensor in tensors.items():
            wanted = types.get(name, tensor.tensor_type)
            same = wanted == tensor.tensor_type
            writer.write_tensor_data(tensor.data if same else _quantized(kernels, pool, tensor, wanted))
            done += tensor.n_elements
            yield float(done / total)
    writer.close()


def _place(name: str) -> tuple[int, str]:
    """llama.cpp goes by layer, then by name; what belongs to no layer comes first."""
    layer = re.match(r"blk\.(\d+)\.", name)
    return (int(layer[1]) if layer else -1, name)


def _mixture(shapes: dict[str, list[int]], type_: str) -> dict[str, Type]:
    """The type of each tensor that is quantised; the others stay as they are. Shapes begin with the width."""
    base = BASE[type_]
    chosen: dict[str, Type] = {}
    output = "output.weight" if "output.weight" in shapes else "token_embd.weight"
    layers = {kind: sum(name.endswith(kind) for name in shapes) for kind in ("attn_v.weight", "ffn_down.weight")}
    seen = dict.fromkeys(layers, 0)
    for name, shape in shapes.items():
        if len(shape) < 2 or not name.endswith("weight") or name.endswith("_norm.weight"):
            continue
        kind = name.split(".", 2)[-1]
        wanted = base
        if name == output:
            wanted = base if base == Type.Q8_0 or shape[0] % _block(base) else Type.Q6_K
            wanted = Type.Q8_0 if shape[0] % _block(base) else wanted
        elif kind in layers:
            if type_ in ("Q4_K_M", "Q5_K_M") and _more_bits(seen[kind], layers[kind]):
                wanted = Type.Q6_K
            seen[kind] += 1
        if shape[0] % _block(wanted):
            wanted = _NARROW.get(wanted, wanted)
        chosen[name] = Type.F16 if shape[0] % _block(wanted) else wanted
    return chosen


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between, matter most."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _block(type_: Type) -> int:
    """Weights that are stored together."""
    return gguf.GGML_QUANT_SIZES[type_][0]


def _copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    ours = ("general.architecture", "general.file_type", "general.quantization_version")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key not in ours:
            array = field.types[0] == gguf.GGUFValueType.ARRAY
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=field.types[-1] if array else None)


def _announce(writer: gguf.GGUFWriter, tensor: gguf.ReaderTensor, wanted: Type) -> None:
    shape = [int(n) for n in reversed(tensor.shape)]
    block, size = gguf.GGML_QUANT_SIZES[wanted]
    nbytes = int(tensor.n_elements) // block * size
    if wanted in (Type.F32, Type.F16):
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), nbytes, raw_dtype=wanted)
    else:
        shape[-1] = shape[-1] // block * size
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), nbytes, raw_dtype=wanted)


def _quantized(kernels: ctypes.CDLL, pool: ThreadPoolExecutor, tensor: gguf.ReaderTensor, wanted: Type) -> np.ndarray:
    """The tensor's bytes as `wanted`, uint8, shape (rows, bytes a row)."""
    width = int(tensor.shape[0])
    weights = tensor.data.reshape(-1, width)
    block, size = gguf.GGML_QUANT_SIZES[wanted]
    out = np.empty((len(weights), width // block * size), np.uint8)
    kernels.ggml_quantize_init(int(wanted))
    rows = max(1, _CHUNK // width)

    def work(start: int) -> None:  # ctypes lets go of the interpreter lock, so the threads run side by side
        part = np.ascontiguousarray(weights[start : start + rows], dtype=np.float32)
        into = out[start : start + rows]
        written = kernels.ggml_quantize_chunk(
            int(wanted), part.ctypes.data, into.ctypes.data, 0, len(part), width, None
        )
        assert written == into.nbytes, f"{tensor.name}: {written} bytes instead of {into.nbytes}"

    list(pool.map(work, range(0, len(weights), rows)))
    return out


def _kernels() -> ctypes.CDLL:
    folder = importlib.util.find_spec("xllamacpp").submodule_search_locations[0]
    library = next(f for f in os.listdir(folder) if f.startswith("xllamacpp") and f.endswith(".so"))
    kernels = ctypes.CDLL(os.path.join(folder, library))
    kernels.ggml_quantize_init.argtypes = [ctypes.c_int]
    kernels.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    kernels.ggml_quantize_chunk.restype = ctypes.c_size_t
    return kernels
