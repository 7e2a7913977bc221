"""The rows of a training, as its job folder keeps them."""

from __future__ import annotations

from hashlib import sha256

import pyarrow.parquet as pq
import pytest

from ft_core.conversation import Conversation, Message
from ft_core.data.freeze import freeze, frozen, read_frozen
from ft_core.data.store import Store
from ft_core.errors import FTError
from ft_core.recipe import DataRecipe


@pytest.fixture
def project(workspace):
    return workspace.project("Test", create=True)


def pair(i: int) -> Conversation:
    return Conversation((Message("user", f"q{i} 👩‍👩‍👧\n"), Message("assistant", 'a "b" \\')), "somewhere")


def test_what_was_frozen_is_what_is_in_the_store(project):
    with Store(project.data) as store:
        store.add(pair(i) for i in range(2503))
        store.set_system("Be kind.")
        store.set_status([7], "rejected")
        job = project.new_job()
        found = freeze(store, job, DataRecipe(heldout=0.1, seed=3))
        assert (found.train, found.heldout) == (2252, 250)
        rows = read_frozen(job.dataset)
        assert [(r.id, r.conversation, r.split) for r in rows] == list(store.conversations())
        assert rows[0].conversation.system == "Be kind."
        assert found.fingerprint == store.stats().fingerprint
        assert frozen(job.dataset) == found
    digest = sha256()
    for row in rows:  # anybody can recompute it from the file
        digest.update(f"{row.split}\t{row.conversation.canonical()}\n".encode())
    assert digest.hexdigest() == found.fingerprint
    assert pq.read_schema(job.dataset).names == ["id", "messages", "tools", "rejected", "split"]


def test_later_changes_do_not_reach_a_frozen_file(project):
    with Store(project.data) as store:
        store.add(pair(i) for i in range(50))
        job, again = project.new_job(), project.new_job()
        first = freeze(store, job, DataRecipe())
        assert freeze(store, again, DataRecipe()) == first
        store.delete([1])
        store.set_system("Changed.")
        assert frozen(job.dataset) == first and len(read_frozen(job.dataset)) == 50
        assert freeze(store, again, DataRecipe()).fingerprint != first.fingerprint


def test_nothing_to_train_on(project):
    with Store(project.data) as store:
        store.add([pair(1)], "rejected")
        job = project.new_job()
        with pytest.raises(FTError, match="no rows to train on"):
            freeze(store, job, DataRecipe())
        assert list(job.path.iterdir()) == []


def test_a_damaged_file(project):
    job = project.new_job()
    for content in (b"", b"PAR1"):
        job.dataset.write_bytes(content)
        with pytest.raises(FTError, match="rows cannot be read"):
            read_frozen(job.dataset)
