"""The rows onto the Hugging Face Hub, as a job: Parquet files by part, and a card that says what they are.

What goes there is what is in the store when the job reads it, in one pass: the fingerprint in the card is that of
these very rows. Nothing is made anew. A repository is private unless the person says otherwise; a second push replaces
files and card of the first.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from huggingface_hub import HfApi

from .. import jobs, recipe
from ..errors import FTError
from ..events import Event, Finished, Note, Progress, Started, Stopped
from ..recipe import BUILTIN, Recipe
from ..workspace import BUILTIN_REPO, Job, Project
from . import dataset_card, folder, quality, repository, views
from .conversations import source
from .layout import Layout
from .store import Store, fingerprint_line
from .writing import Gathered, write_parquet

_KEPT = "nothing is lost, the rows are in the project"
_LANGUAGE_FROM = 0.05
"""Share of the rows from which a language is named."""


@dataclass(frozen=True)
class Wanted:
    """What a push is asked for; it is the job's arguments.json."""

    repo: str
    """user/name on the Hub, or a name alone for the token's owner."""
    public: bool = False
    shape: str = "messages"
    licence: str = ""
    """As the Hub calls it (cc-by-4.0), '' for none."""


def start(
    project: Project,
    wanted: Recipe,
    repo: str,
    *,
    public: bool = False,
    shape: str = "messages",
    licence: str = "",
    token: str = "",
) -> Job:
    """Starts the push of the project's rows; `token` goes to the child by its standard input alone.

    Raises FTError for what is no name, an unknown shape, and without a token or rows.
    """
    if not repo:
        raise FTError("a dataset needs a name on the Hub", "It is user/name, or a name alone.")
    repository.check(repo, token)
    Layout(shape)
    with Store(project.data) as store:
        counts = store.counts()
    if counts.rows == counts.rejected:
        raise FTError("there are no rows to push", "Import or generate some, or accept rows that were rejected.")
    job = jobs.create(project, "publish", wanted, asdict(Wanted(repo, public, shape, licence)))
    jobs.start(job, {"HF_TOKEN": token})
    return job


def run(job: Job, secrets: dict[str, str], endpoint: str | None = None) -> Iterator[Event]:
    """Finished has repo (its address), private, rows, train, test, left_out, fingerprint and files.

    Raises FTError for a token that is refused, a public repository where a private one is wanted, rows that the shape
    cannot hold, a Hub that does not answer, and files that arrived damaged.
    """
    wanted = Wanted(**jobs.arguments(job))
    made = job.path / "dataset"
    yield Started(3)
    api = HfApi(endpoint=endpoint, token=secrets.get("HF_TOKEN", ""))
    with repository.refusals(api.endpoint, _KEPT):
        try:
            repo = repository.whole_name(api, wanted.repo)
            yield Progress(0, 3, what="writing the rows")
            written = _write(job, wanted, repo, made)
            if job.stop.exists():
                yield Stopped(0, {})
                return
            yield Progress(1, 3, what="uploading")
            private = _create(api, repo, wanted.public)
            api.upload_folder(
                repo_id=repo,
                repo_type="dataset",
                folder_path=made,
                commit_message=f"{written.rows} rows, by FT Flow",
                delete_patterns=["data/train-*.parquet", "data/test-*.parquet"],
            )
            yield Progress(2, 3, what="looking whether all arrived")
            same, files = repository.arrived(api, repo, "dataset", made)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    if same < files:
        raise FTError(f"{files - same} of {files} files did not arrive whole", "Push again; that replaces them.")
    address = f"{api.endpoint}/datasets/{repo}"
    if wanted.public and private:
        yield Note(f"{repo} was private and stays so; it can be made public on its page.")
    yield Note(f"Pushed to {address} ({'private' if private else 'public'}).")
    yield Progress(3, 3, 0.0)
    yield Finished({"repo": address, "private": private, "files": files, **written.result()})


def _create(api: HfApi, repo: str, public: bool) -> bool:
    """Whether the repository is private; it is made where it is not there."""
    api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
    private = repository.is_private(api, repo, "dataset")
    if not private and not public:
        raise FTError(f"{repo} is public", "Say that the rows may be public, or name another one.")
    return private


@dataclass
class _Pass:
    """What one pass over the rows gathers."""

    parts: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    unplaced: int = 0
    fingerprint: str = ""

    @property
    def rows(self) -> int:
        return self.parts.total()

    def result(self) -> dict[str, object]:
        sides = {"rows": self.rows, "train": self.parts["train"], "test": self.parts["test"]}
        return {**sides, "left_out": self.left_out, "fingerprint": self.fingerprint}


def _write(job: Job, wanted: Wanted, repo: str, made: Path) -> _Pass:
    """The files and the card, into `made`."""
    done, digest = _Pass(), sha256()
    shutil.rmtree(made, ignore_errors=True)
    (made / "data").mkdir(parents=True)
    with Store(job.project.data) as store, Gathered(wanted.shape) as gathered:
        for _, conversation, side in store.conversations():
            digest.update(fingerprint_line(conversation.canonical(), side))
            if gathered.add(conversation, folder.PARTS[side]):
                done.sources[source(conversation.origin)] += 1
                done.unplaced += not side
        gathered.written()
        done.parts, done.left_out, done.fingerprint = gathered.rows, gathered.left_out, digest.hexdigest()
        for part in gathered.rows:
            write_parquet(gathered, made / "data" / f"{part}-00000-of-00001.parquet", part)
        flags = quality.check(store).flags  # it also finds out the languages
        facts = dataset_card.Facts(
            repo=repo,
            shape=wanted.shape,
            columns=tuple(gathered.layout.columns),
            system=store.system,
            parts={part: done.parts[part] for part in ("train", "test") if done.parts[part]},
            left_out=done.left_out,
            unplaced=done.unplaced,
            sources=done.sources,
            generators={s: _generator(job, s) for s in done.sources if s.startswith(dataset_card.GENERATED)},
            languages=_languages(store),
            licence=wanted.licence,
            counts=store.counts(),
            split=store.split_settings,
            flags=flags,
            fingerprint=done.fingerprint,
        )
    (made / "README.md").write_text(dataset_card.card(facts), encoding="utf-8")
    return done


def _generator(job: Job, source: str) -> str:
    """The model that wrote the rows of a generation, '' when its job is gone or named none. Never its address."""
    try:
        wanted = recipe.load(job.project.job(source.removeprefix(dataset_card.GENERATED)).recipe).generate
    except FTError:
        return ""
    return f"{BUILTIN_REPO}, the built-in model" if wanted.teacher == BUILTIN else wanted.model


def _languages(store: Store) -> tuple[str, ...]:
    """Of the answers, as far as the audit has looked at them, the most frequent first."""
    with store.reading() as db:
        found = db.execute(
            "SELECT language, COUNT(*) FROM rows CROSS JOIN audited ON audited.id = conversation"
            f" WHERE {views.TRAINED} AND language <> '' GROUP BY language ORDER BY COUNT(*) DESC, language"
        ).fetchall()
    rows = sum(n for _, n in found)
    return tuple(language for language, n in found if n >= _LANGUAGE_FROM * rows)
