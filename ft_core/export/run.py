"""An export job: what is wanted, step by step, each thing checked before it takes its name.

Everything is written into a hidden folder beside its place and moved when its gates have passed, so that whatever
stands under its own name can be used.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FTError
from ..events import Event, Finished, Note, Progress, Started, Stopped
from ..workspace import Job
from . import archive, card, gguf, hub, merge, modelfile, ollama, quantize, verify
from .start import OLLAMA_TYPE, Wanted
from .trained import Trained, no_paths
from .verify import Check, Heard, Reference

SHARE_OF_F16 = {"F16": 1.0, "Q8_0": 0.54, "Q6_K": 0.52, "Q5_K_M": 0.45, "Q4_K_M": 0.42}
"""Size of a GGUF against 16 bits, at worst (a small model with a large vocabulary)."""
_TELL_EVERY_S = 0.5

Doing = Iterator[float | Note]
"""A step at work: the share that is done (0 to 1), and what the person should know."""


def run(job: Job, secrets: dict[str, str]) -> Iterator[Event]:
    """Makes what the job's arguments ask for. `secrets` may hold HF_TOKEN.

    Finished has files, verified (all gates passed), checks, path (the folder), zip and, where it applies, repo and
    ollama. Raises FTError when nothing passed its gates, and for what cannot be exported.
    """
    wanted = Wanted.of(job)
    yield Started()
    trained = Trained.of(job.project.job(wanted.train_job), lambda share, what: None)
    out = Path(wanted.out) if wanted.out else job.export
    export = _Export(wanted, trained, out, out / f".{job.id}.part", secrets.get("HF_TOKEN", ""))
    export.prepare()
    try:
        yield from _steps(job, export)
    finally:
        shutil.rmtree(export.scratch, ignore_errors=True)


def _steps(job: Job, export: _Export) -> Iterator[Event]:
    steps = export.plan()
    began = time.monotonic()
    for i, (what, step) in enumerate(steps):
        eta = (time.monotonic() - began) / i * (len(steps) - i) if i else None
        yield Progress(i, len(steps), eta, what)
        told = time.monotonic()
        for said in step():
            if job.stop.exists():
                yield Stopped(i, export.result())
                return
            if isinstance(said, Note):
                yield said
            elif time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                yield Progress(i, len(steps), eta, f"{what}, {said:.0%}")
    result = export.result()
    failed = [c["name"] for c in result["checks"] if c["kind"] == "gate" and not c["passed"]]
    if not result["files"]:
        raise FTError(
            f"nothing passed its checks: {'; '.join(failed)}", "Train longer, or with a lower rate, and export again."
        )
    for name in failed:
        yield Note(f"Left out, because a check failed: {name}.", "warning")
    yield Progress(len(steps), len(steps), 0.0)
    yield Finished(result)


@dataclass
class _Export:
    """One export while it is made."""

    wanted: Wanted
    trained: Trained
    out: Path
    scratch: Path
    token: str
    checks: list[Check] = field(default_factory=list)
    made: dict[str, Path] = field(default_factory=dict)
    """By kind, in its final place."""
    said: np.ndarray | None = None
    """What the trained model says before it is merged."""
    heard: Heard | None = None
    """What llama.cpp says with 16 bits."""
    reference: Reference | None = None
    zip: Path | None = None
    links: dict[str, str] = field(default_factory=dict)

    def prepare(self) -> None:
        """Raises FTError when the folder cannot be written or has too little room."""
        base = sum(f.stat().st_size for f in self.trained.base.glob("*.safetensors"))
        shares = [SHARE_OF_F16[t] for t in self.wanted.types]
        need = int(base * (2 + sum(shares) + ("ollama" in self.wanted.to))) if self._merges else 2**20
        try:
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir(parents=True)
            free = shutil.disk_usage(self.out).free
        except OSError as error:
            raise FTError(f"{self.out} cannot be written: {error.strerror}", "Choose another folder.") from None
        if free < need:
            raise FTError(
                f"the export needs about {need / 1e9:.1f} GB in {self.out}, and {free / 1e9:.1f} GB are free",
                "Make room, or choose a folder on another disk.",
            )

    @property
    def _merges(self) -> bool:
        return set(self.wanted.kinds) - {"adapter", "hub"} != set()

    def plan(self) -> list[tuple[str, Callable[[], Doing]]]:
        kinds, types = self.wanted.kinds, self.wanted.types
        steps: list[tuple[str, Callable[[], Doing]]] = []
        if "adapter" in kinds:
            steps.append(("Copying the adapter", self.adapter))
        if self._merges:
            steps.append(("Putting what was trained into the base", self.merge))
            if types:
                steps.append(("Writing the 16-bit GGUF", self.write_f16))
                steps.append(("Asking it in llama.cpp", self.listen_f16))
            steps.append(("Comparing with transformers", self.ask))
        for type_ in types:
            if type_ != "F16":
                steps.append((f"Writing the GGUF as {type_}", lambda t=type_: self.write_quantized(t)))
                steps.append((f"Checking {type_} in llama.cpp", lambda t=type_: self.check_quantized(t)))
        if any(kind == "ollama" or kind.startswith("gguf:") for kind in self.wanted.to):
            steps.append(("Writing the Modelfile", self.modelfile))
        if "ollama" in kinds:
            steps.append(("Packing the zip", self.pack))
            steps.append(("Creating the model in Ollama", self.create))
        if "hub" in kinds:
            steps.append(("Pushing to the Hugging Face Hub", self.push))
        return steps

    def result(self) -> dict[str, Any]:
        files = [f for path in self.made.values() for f in _files(path)] + _files(self.zip)
        return {
            "files": [str(f) for f in dict.fromkeys(files)],
            "verified": bool(files) and all(c.passed for c in self.checks if c.kind == "gate"),
            "checks": [c.to_dict() for c in self.checks],
            "path": str(self.out),
            "zip": str(self.zip or ""),
            **self.links,
        }

    # --- the steps ------------------------------------------------------------------------------------------------

    def adapter(self) -> Doing:
        folder = self.scratch / f"{self.wanted.file_stem}-lora"
        yield from merge.copy_adapter(self.trained, folder)
        card.write(folder, card.adapter(self.trained, self.wanted.name))
        self.checks += merge.check_adapter(self.trained, folder)
        self.checks.append(self._no_paths("adapter", folder))
        self._keep("adapter", folder)

    def merge(self) -> Doing:
        self.said = yield from merge.merge(self.trained, self._merged)

    def write_f16(self) -> Doing:
        about = gguf.About(self.wanted.name, self.trained.base_id, self.trained.licence)
        yield from gguf.write_f16(self._merged, self._gguf("F16"), about)

    def listen_f16(self) -> Doing:
        self.heard = yield from verify.listen(self._gguf("F16"), self.trained)

    def ask(self) -> Doing:
        answers = self.heard.answers if self.heard else ()
        self.reference = yield from verify.ask_transformers(self._merged, self.trained, answers)
        self.checks.append(verify.compare_merged(self.said, self.reference))
        self.checks.append(self._no_paths("merged", self._merged))
        if self.heard and self._passed("merged"):
            self.checks += verify.compare("F16", self.heard, self.trained, self.reference)
            if "gguf:F16" in self.wanted.kinds:
                self._keep("gguf:F16", self._gguf("F16"))
        if "merged" in self.wanted.kinds:
            card.write(self._merged, card.merged(self.trained, self.wanted.name))
            self._keep("merged", self._merged)

    def write_quantized(self, type_: str) -> Doing:
        if not self._passed("merged") or not self._passed("F16"):
            return  # what is made of them would be wrong too
        source = self.made.get("gguf:F16", self._gguf("F16"))
        if type_ in ("Q4_K_M", "Q5_K_M") and not quantize.fits_k_types(self.trained.width):
            yield Note(
                f"This model's width is no multiple of 256, so {type_} stores most of it in other types, larger and "
                "coarser. Q8_0 is closer to the trained model.",
                "warning",
            )
        yield from quantize.quantize(source, self._gguf(type_), type_)

    def check_quantized(self, type_: str) -> Doing:
        path = self._gguf(type_)
        if path.exists():
            heard = yield from verify.listen(path, self.trained)
            self.checks += verify.compare(type_, heard, self.trained, self.reference)
            self._keep(f"gguf:{type_}", path)

    def modelfile(self) -> Doing:
        """Stands beside every GGUF; only who asked for Ollama cannot do without it."""
        model = self._for_ollama
        if model is None:
            return
        try:
            written = modelfile.Modelfile.of(self.trained, model.name)
        except FTError as error:
            if "ollama" in self.wanted.to:
                raise
            yield Note(f"No Modelfile for Ollama: {error.message}.", "warning")
            return
        path = self.scratch / "Modelfile"
        path.write_text(written.text(), encoding="utf-8")
        self.checks += written.checks(self.trained)
        self._keep("ollama", path)

    def pack(self) -> Doing:
        if "ollama" in self.made and self._for_ollama:
            archived = self.scratch / f"{self.wanted.file_stem}-ollama.zip"
            yield from archive.write([self._for_ollama, self.made["ollama"]], archived)
            self.zip = self._place(archived)

    def create(self) -> Doing:
        if "ollama" in self.made and (model := self._for_ollama):
            written = modelfile.Modelfile.of(self.trained, model.name)
            self.checks += yield from ollama.create(self.wanted, written, model, self.links)

    def push(self) -> Doing:
        if self.wanted.push in self.made:
            made = self.made[self.wanted.push]
            self.checks += yield from hub.push(self.wanted, self.trained, made, self.token, self.links)

    # --- what they share ------------------------------------------------------------------------------------------

    @property
    def _merged(self) -> Path:
        """The merged model until it has its place; it is needed on the way to every GGUF."""
        return self.scratch / self.wanted.file_stem

    @property
    def _for_ollama(self) -> Path | None:
        """The GGUF that the Modelfile speaks of: Ollama's usual type, else the smallest that was made."""
        usual = [OLLAMA_TYPE] if "ollama" in self.wanted.to else []
        return next((m for t in [*usual, *reversed(self.wanted.types)] if (m := self.made.get(f"gguf:{t}"))), None)

    def _gguf(self, type_: str) -> Path:
        return self.scratch / f"{self.wanted.file_stem}-{type_}.gguf"

    def _no_paths(self, subject: str, folder: Path) -> Check:
        return Check(f"{subject}: no file speaks of this machine", "gate", no_paths(folder, self.trained.job), 1.0)

    def _passed(self, subject: str) -> bool:
        return all(c.passed for c in self.checks if c.kind == "gate" and c.name.startswith(f"{subject}: "))

    def _keep(self, kind: str, path: Path) -> None:
        """Gives a thing its name when it has passed."""
        subject = {"ollama": "Modelfile"}.get(kind, kind.removeprefix("gguf:"))
        if self._passed(subject):
            self.made[kind] = self._place(path)

    def _place(self, path: Path) -> Path:
        """Into its final place, instead of what an earlier export left there."""
        final = self.out / path.name
        if final.is_dir():
            shutil.rmtree(final)
        os.replace(path, final)
        return final


def _files(path: Path | None) -> list[Path]:
    if path is None:
        return []
    return sorted(path.iterdir()) if path.is_dir() else [path]
