"""The model card: what the Hub wants to know, and what a reader needs to judge and run the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from huggingface_hub import ModelCardData

from ..train import further, methods
from .trained import Trained

Relation = Literal["adapter", "finetune", "quantized"]


def adapter(trained: Trained, name: str) -> str:
    usage = f"""from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{trained.base_name}"), "PATH_OR_REPO")
tokenizer = AutoTokenizer.from_pretrained("PATH_OR_REPO")"""
    tags = ["lora", *(["dora"] if trained.recipe.train.method == "dora" else [])]
    return _card(trained, name, "adapter", "peft", tags, f"```python\n{usage}\n{_ASK}```")


def merged(trained: Trained, name: str) -> str:
    usage = """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH_OR_REPO")
tokenizer = AutoTokenizer.from_pretrained("PATH_OR_REPO")"""
    return _card(trained, name, "finetune", "transformers", [], f"```python\n{usage}\n{_ASK}```")


def gguf(trained: Trained, name: str, repo: str, type_: str) -> str:
    usage = f"```\nollama run hf.co/{repo}:{type_}\nllama-server -hf {repo}:{type_}\n```"
    return _card(trained, name, "quantized", "gguf", ["gguf", "llama-cpp", "ollama"], usage)


_LEARNS = {
    "answers": "supervised fine-tuning",
    "preferences": "direct preference optimisation",
    "text": "continued pre-training",
}
_TAGS = {"answers": "sft", "preferences": "dpo", "text": "continued-pretraining"}


def write(folder: Path, text: str) -> None:
    (folder / "README.md").write_text(text, encoding="utf-8")


_ASK = """messages = [{"role": "user", "content": "Hello"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=200)[0]))
"""


def _card(trained: Trained, name: str, relation: Relation, library: str, tags: list[str], usage: str) -> str:
    data = ModelCardData(
        base_model=trained.base_id or None,
        base_model_relation=relation if trained.base_id else None,
        library_name=library,
        license=trained.licence or None,
        pipeline_tag="text-generation",
        tags=[_TAGS[trained.recipe.train.learns], "ft-flow", *tags],
    )
    parts = [
        f"---\n{data.to_yaml()}\n---\n\n# {name}",
        f"[{trained.base_name}](https://huggingface.co/{trained.base_id})" if trained.base_id else trained.base_name,
    ]
    learns = _LEARNS[trained.recipe.train.learns]
    parts[1] = f"{parts[1]}, trained on {trained.data.train} rows: {learns}, {methods.words(trained.recipe.train)}."
    if trained.system:
        parts.append(f"Trained under this system prompt:\n\n{_quoted(trained.system)}")
    parts += [f"## Use\n\n{usage}", f"## Training\n\n{_table(_facts(trained))}", _licence(trained)]
    return "\n\n".join(parts) + "\n"


def _facts(trained: Trained) -> dict[str, Any]:
    settings, result = trained.recipe.train, trained.result
    facts = {
        "method": f"{_LEARNS[settings.learns]}, {methods.words(settings)}",
        "rows trained": trained.data.train,
        "rows held out": trained.data.heldout,
        "fingerprint of the rows (sha256)": f"`{trained.data.fingerprint}`",
        "learning rate": f"{settings.learning_rate:g}, {settings.schedule}",
        "rows an update": settings.batch_size,
    }
    if origin := further.name_of(trained.job):
        facts["trained further from"] = origin
    if steps := result.get("steps"):
        facts["updates"] = steps
    before, after = result.get("heldout_before"), result.get("heldout_after")
    if before and after is not None:
        change = (after - before) / before
        facts["held-out loss (nats a trained token)"] = f"{before:.3f} before, {after:.3f} after ({change:+.0%})"
    return facts


def _table(facts: dict[str, Any]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in facts.items())])


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines())


def _licence(trained: Trained) -> str:
    if trained.licence:
        return f"The licence, {trained.licence}, is the base model's."
    return f"The licence is that of the base model, {trained.base_name}; see there."
