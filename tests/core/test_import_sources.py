"""Where rows come from: archives, folders of `datasets`, addresses, pasted text; progress and Cancel."""

from __future__ import annotations

import datetime
import gzip
import http.server
import json
import re
import ssl
import threading
import tracemalloc
import zipfile
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ft_core.conversation import Conversation, Message
from ft_core.data import addresses, archives, formats, look, public
from ft_core.data.formats import Ended, Skipped
from ft_core.data.reading import Meter, Pasted
from ft_core.errors import FTError

PAIR = Conversation((Message("user", "Do you ship?"), Message("assistant", "Yes.")))
RECORD = {"prompt": "Do you ship?", "completion": "Yes."}
LINE = json.dumps(RECORD) + "\n"
DAY = datetime.timedelta(days=1)


def zipped(path: Path, **members: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def good(source, **options) -> list[Conversation]:
    return [row for row in formats.read(source, **options) if isinstance(row, Conversation)]


# --- Arrow and the folders of `datasets`


def test_a_folder_that_datasets_saved(tmp_path, store):
    many = datasets.Dataset.from_list([{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(1200)])
    many.save_to_disk(tmp_path / "fjord", num_shards=3)
    rows = good(tmp_path / "fjord")
    assert [r.messages[1].content for r in rows] == [f"a{i}" for i in range(1200)]
    assert (rows[0].origin, rows[-1].origin) == ("fjord row 1", "fjord row 1200")
    (tmp_path / "fjord" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(FTError, match="fjord is not whole: data-00001-of-00003.arrow is missing"):
        formats.import_files(store, [tmp_path / "fjord"])
    assert store.count() == 0


def test_a_datasets_dict_also_in_an_archive(tmp_path):
    one = datasets.Dataset.from_list([{"messages": [{"role": "assistant", "content": "Hi"}]}])
    datasets.DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "both")
    wanted = ["both/test row 1", "both/train row 1"]
    assert [r.origin for r in good(tmp_path / "both")] == wanted
    inside = {p.relative_to(tmp_path).as_posix(): p.read_bytes() for p in (tmp_path / "both").rglob("*.*")}
    path = zipped(tmp_path / "a.zip", **inside)
    assert [r.origin for r in good(path)] == [f"a.zip: {name}" for name in wanted]


@pytest.mark.parametrize("kind", [pa.ipc.new_stream, pa.ipc.new_file])
def test_single_arrow_files(tmp_path, kind):
    table = pa.Table.from_pylist([RECORD] * 3)
    with kind(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    assert good(tmp_path / "a.arrow") == [PAIR] * 3
    (tmp_path / "a.arrow").write_bytes(b"not arrow")
    with pytest.raises(FTError, match="a.arrow is no whole Arrow file"):
        good(tmp_path / "a.arrow")


# --- archives


def test_an_archive_of_all_kinds(tmp_path, store):
    path = zipped(
        tmp_path / "all.zip",
        **{
            "deep/er/a.jsonl": LINE * 2,
            "../b.csv": "prompt,completion\nDo you ship?,Yes.\n",
            "c.jsonl.gz": gzip.compress(LINE.encode()),
            "README.md": "A text.",
            "photo.png": b"\x89PNG",
            "more.zip": b"PK",
            "__MACOSX/a.jsonl": b"x",
            ".hidden.json": b"x",
        },
    )
    done = formats.import_files(store, [path])
    assert done.added == 4 and store.log()[0].what == "4 rows added"
    assert {(s.file, s.row, s.reason) for s in done.skipped} == {
        ("all.zip: README.md", 0, "a text beside tables; import it alone if it is data"),
        ("all.zip: photo.png", 0, "files of this kind are not known"),
        ("all.zip: more.zip", 0, "an archive in an archive is not opened"),
    }
    assert store.rows()[0].conversation.origin == "all.zip: ../b.csv row 1"
    assert not (tmp_path.parent / "b.csv").exists()
    assert good(zipped(tmp_path / "text.zip", **{"a.txt": "Once."}))[0].messages[0].content == "Once."


def test_a_broken_file_in_an_archive(tmp_path, store):
    path = zipped(tmp_path / "a.zip", **{"a.jsonl": LINE, "b.jsonl": LINE + "{", "c.csv": "name\nAda\n"})
    with pytest.raises(FTError, match=re.escape("a.zip: b.jsonl is broken at line 2")):
        formats.import_files(store, [path])
    assert store.count() == 0
    done = formats.import_files(store, [path], partial=True)
    assert done.added == 2 and done.ended_at.startswith("a.zip: b.jsonl, line 2: ")
    assert [s.file for s in done.skipped] == ["a.zip: c.csv"]


def test_archives_that_cannot_be_opened(tmp_path, store, monkeypatch):
    bomb = zipped(tmp_path / "bomb.zip", **{"a.jsonl": LINE * 100_000})
    monkeypatch.setattr(archives, "UNPACKED", 1 << 20)
    with pytest.raises(FTError, match="bomb.zip unpacks to more than"):
        formats.import_files(store, [bomb])
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(LINE.encode() * 100_000))
    with pytest.raises(FTError, match="bomb.jsonl.gz unpacks to more than"):
        formats.import_files(store, [tmp_path / "bomb.jsonl.gz"])
    (tmp_path / "cut.zip").write_bytes(bomb.read_bytes()[:-30])
    with pytest.raises(FTError, match="cut.zip is no whole ZIP archive"):
        good(tmp_path / "cut.zip")
    with pytest.raises(FTError, match="none.zip holds no file that can be imported"):
        good(zipped(tmp_path / "none.zip", **{"a.pdf": b"%"}))
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "two.zip", "w") as twice:
        twice.writestr("a.jsonl", LINE)
        twice.writestr("a.jsonl", LINE)
    with pytest.raises(FTError, match="two.zip has two files of one name"):
        good(tmp_path / "two.zip")
    monkeypatch.setattr(archives, "MOST_FILES", 2)
    with pytest.raises(FTError, match="many.zip has 3 files"):
        good(zipped(tmp_path / "many.zip", **{f"{i}.jsonl": LINE for i in range(3)}))
    assert store.count() == 0


def test_packed_text_that_was_cut_off(tmp_path):
    packed = gzip.compress("".join(json.dumps({**RECORD, "n": i}) + "\n" for i in range(5000)).encode())
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(FTError, match="rows.jsonl.gz is broken at .*: what is packed is damaged"):
        good(path)
    *some, last = formats.read(path, partial=True)
    assert len(some) > 100 and isinstance(last, Ended)
    assert formats.recognise(path).shape == "prompt-completion"


def test_a_folder_of_files(tmp_path, store):
    folder = tmp_path / "rows"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.csv").write_text("prompt,completion\nDo you ship?,Yes.\n")
    (folder / "b.jsonl").write_text(LINE)
    done = formats.import_files(store, [folder])
    assert done.added == 2 and [r.conversation.origin for r in store.rows()] == [
        "rows/b.jsonl row 1",
        "rows/deep/a.csv row 1",
    ]
    assert formats.recognise(folder).table == "rows/b.jsonl"


# --- progress, Cancel, memory


def test_progress_reaches_the_end_and_cancel_adds_nothing(tmp_path, store):
    (tmp_path / "a.csv").write_text("prompt,completion\n" + "Do you ship?,Yes.\n" * 3000)
    zipped(tmp_path / "b.zip", **{"x.jsonl": LINE * 2000, "y.json": json.dumps([RECORD] * 1000)})
    told = []
    formats.import_files(store, [tmp_path / "a.csv", tmp_path / "b.zip"], tell=lambda *now: told.append(now))
    done, total, rows = zip(*told)
    assert list(done) == sorted(done) and list(rows) == sorted(rows)
    assert (done[-1], rows[-1]) == (total[-1], 6000)
    assert total[-1] > (tmp_path / "a.csv").stat().st_size
    assert [now for now in told if 0 < now[0] < now[1] and 0 < now[2] < 3000]  # in the middle of the first, too
    store.undo()

    class Cancelled(Exception):
        pass

    def cancel(done: int, total: int, rows: int) -> None:
        if 1000 < rows < 2000:
            raise Cancelled

    with pytest.raises(Cancelled):
        formats.import_files(store, [tmp_path / "a.csv"], tell=cancel)
    assert store.count() == 0 and store.can_redo  # not even an operation


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".json", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, suffix):
    """Four times the rows, and the peak of what Python holds stays."""
    long = Conversation((Message("user", "Go on."), Message("assistant", "ö on and on" * 1000)))

    def peak(rows: int) -> int:
        path = tmp_path / f"{rows}{suffix}"
        formats.write([long] * rows, path)
        tracemalloc.start()
        assert sum(1 for _ in formats.read(path)) == rows
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(2400) < 1.3 * peak(600)


def test_a_line_without_an_end_is_not_read_into_memory(tmp_path, monkeypatch):
    from ft_core.data import text_files

    monkeypatch.setattr(text_files, "LONGEST_CELL", 10_000)
    for name in ("a.jsonl", "a.csv", "a.txt"):
        (tmp_path / name).write_text("prompt,completion\na,b\n" if name.endswith("csv") else LINE)
        with (tmp_path / name).open("a") as file:
            file.write("x" * 20_000)
        with pytest.raises(FTError, match=f"{name} is broken at line .: it is longer than 10,000 characters"):
            good(tmp_path / name)


def test_rows_that_cannot_be_used_are_named_to_a_limit_and_counted(tmp_path, store):
    (tmp_path / "a.jsonl").write_text(LINE + '{"prompt": "a"}\n' * 1500)
    done = formats.import_files(store, [tmp_path / "a.jsonl"])
    assert (done.added, done.skipped_rows, len(done.skipped)) == (1, 1500, 1000)


# --- addresses


def test_an_address_is_copied_and_read(store):
    memory = fsspec.filesystem("memory")
    memory.pipe("/rows/a.jsonl", LINE.encode() * 1200)
    memory.pipe("/rows/a.csv.gz", gzip.compress(b"prompt,completion\nDo you ship?,Yes.\n"))
    told = []
    sources = ["memory://rows/a.jsonl", "memory://rows/a.csv.gz"]
    assert formats.import_files(store, sources, tell=lambda *now: told.append(now)).added == 1201
    assert told[0][1] == len(LINE) * 1200 and told[-1][0] == told[-1][1]
    assert store.rows()[0].conversation.origin == "a.jsonl row 1"
    assert formats.recognise("memory://rows/a.jsonl").preview[0] == PAIR
    with pytest.raises(FTError, match="there is no file memory://rows/none.csv"):
        good("memory://rows/none.csv")


def test_addresses_that_are_refused(monkeypatch):
    with pytest.raises(FTError, match="s3:// needs a package that is not installed") as refused:
        good("s3://bucket/rows.jsonl")
    assert refused.value.hint == "pip install s3fs"
    with pytest.raises(FTError, match="nowhere://"):
        good("nowhere://x/rows.jsonl")
    with pytest.raises(FTError, match="a password in it") as refused:
        good("https://ada:secret@127.0.0.1/rows.jsonl")
    assert "secret" not in refused.value.message + refused.value.hint
    assert addresses.shown("https://a.example/rows.jsonl?key=secret") == "https://a.example/rows.jsonl"
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    for address in (
        "s3://b/a.csv",
        "file:///etc/passwd.txt",
        "memory://a.csv",
        "http://example.org/a.csv",
        "hf://a/b",
    ):
        with pytest.raises(FTError, match="is not read on a Space"):
            good(address)
    for host in ("127.0.0.1", "localhost", "[::1]", "10.0.0.8", "169.254.169.254", "0.0.0.0", "[::ffff:10.0.0.1]"):
        with pytest.raises(FTError, match="is no public host"):
            good(f"https://{host}/rows.jsonl")


def test_which_addresses_are_public():
    for inner in ("127.0.0.1", "192.168.1.1", "100.64.0.1", "fe80::1%eth0", "fd00::1", "64:ff9b::7f00:1", "224.0.0.1"):
        assert not public.is_public(inner), inner
    assert public.is_public("93.184.215.14") and public.is_public("2606:2800:21f:cb07:6820:80da:af6b:8b2c")


def test_only_https_is_fetched_for_strangers(tmp_path):
    with (tmp_path / "x").open("wb") as target:
        for url in (
            "http://example.org/a",
            "ftp://example.org/a",
            "https:///a",
            "https://u@example.org/",
            "https://[x/",
        ):
            with pytest.raises(FTError, match="only https|cannot be read"):
                public.download(url, target, Meter())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the name localhost, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + DAY)
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    path.write_bytes(secret + made.sign(key, hashes.SHA256()).public_bytes(pem))
    return path


class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        port = self.server.server_address[1]
        places = {"/away": "https://10.0.0.8/rows.jsonl", "/loop": "/loop", "/on": "/rows.jsonl?a=b"}
        places["/plain"] = f"http://localhost:{port}/rows.jsonl"
        if place := places.get(self.path):
            self.send_response(302)
            self.send_header("Location", place)
            self.end_headers()
            return
        self.send_response(200 if self.path.startswith(("/rows", "/short")) else 404)
        self.send_header("Content-Length", str(len(LINE) * (2 if self.path == "/short" else 1)))
        self.end_headers()
        self.wfile.write(LINE.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def https(certificate: Path):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://localhost:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_public_file_is_fetched_and_every_step_of_the_way_is_looked_at(https, certificate, tmp_path):
    trusted = ssl.create_default_context(cafile=certificate)
    looked_at = []

    def here(address: str) -> bool:
        """This test's idea of public."""
        looked_at.append(address)
        return address in ("127.0.0.1", "::1")

    def fetched(path: str, **options) -> str:
        with (tmp_path / "x").open("wb") as target:
            public.download(https + path, target, Meter(), allowed=here, trusted=trusted, **options)
        return (tmp_path / "x").read_text()

    assert fetched("/rows.jsonl") == LINE
    assert fetched("/on") == LINE
    for path, says in {
        "/away": "10.0.0.8 is no public host",
        "/loop": "localhost sends from address to address",
        "/plain": "only https:// addresses",
        "/none": "localhost answers 404",
        "/short": "came from localhost only in part",
    }.items():
        with pytest.raises(FTError, match=says):
            fetched(path)
    assert "10.0.0.8" in looked_at
    with pytest.raises(FTError, match="larger than"):
        fetched("/rows.jsonl", most=10)
    with pytest.raises(FTError, match="localhost cannot be read: .*certificate"):
        with (tmp_path / "x").open("wb") as target:
            public.download(https + "/rows.jsonl", target, Meter(), allowed=here)


# --- pasted


PASTED = {
    "question\tanswer\nDo you ship?\tYes.\n": "prompt-completion",
    "question,answer\nDo you ship?,Yes.": "prompt-completion",
    "\ufeff[" + json.dumps(RECORD) + "]": "prompt-completion",
    LINE * 1: "prompt-completion",
    "Q: Do you ship?\nA: Yes.": "prompt-completion",
    "\n\nQuestion: Do you ship?\n\nAnswer: Yes.\n": "prompt-completion",
    json.dumps({"messages": [m.to_dict() for m in PAIR.messages]}): "messages",
}


@pytest.mark.parametrize("text", PASTED)
def test_pasted_text_is_what_it_looks_like(text, store):
    seen = formats.recognise(Pasted(text))
    assert (seen.shape, seen.preview, seen.table) == (PASTED[text], (PAIR,), "pasted text")
    assert formats.import_files(store, [Pasted(text)]).added == 1
    assert store.rows()[0].conversation.origin.startswith("pasted text row ")


def test_pasted_text_that_is_only_text():
    text = "Once, long ago, in a town,\nthere was a harbour, and a boat, and a man.\n\nThe end."
    assert [m.messages[0].content for m in good(Pasted(text))] == [*text.split("\n\n")]
    assert formats.recognise(Pasted("[Verse 1]\nla")).shape == "text"


def test_pasted_text_that_is_broken_names_its_line():
    with pytest.raises(FTError, match="pasted text is broken at line 2: "):
        good(Pasted(LINE + "{oops}\n"))
    with pytest.raises(FTError, match="there is no pasted text"):
        good(Pasted(" \n"))
    with pytest.raises(FTError, match="pasted text has the columns Frage, Antwort"):
        good(Pasted("Frage\tAntwort\na\tb"))


# --- a look


def test_a_look_says_what_the_page_shows(tmp_path):
    (tmp_path / "a.csv").write_text("Frage,Antwort\nq,a\n")
    seen = look.ask(tmp_path / "a.csv")
    assert seen["problem"]["message"].startswith("a.csv has the columns Frage, Antwort")
    assert (seen["columns"], seen["samples"]) == (["Frage", "Antwort"], {"Frage": "q", "Antwort": "a"})
    assert seen["shapes"]["alpaca"][0] == {"name": "instruction", "needed": True}
    seen = look.ask(tmp_path / "a.csv", {"prompt": "Frage", "completion": "Antwort"}, "prompt-completion")
    assert seen["problem"] is None and seen["preview"][0]["messages"][0]["content"] == "q"
    assert seen["fields"][0] == {"name": "prompt", "needed": True, "column": "Frage"}
    json.dumps(seen)


def test_a_typed_path_is_not_looked_at_on_a_space(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text(LINE)
    assert look.ask(str(tmp_path / "a.jsonl"))["shape"] == "prompt-completion"
    monkeypatch.setenv("SPACE_ID", "somebody/space")
    assert look.ask(tmp_path / "a.jsonl")["shape"] == "prompt-completion"
    with pytest.raises(FTError, match="paths of a Space are nobody's to read"):
        look.ask(str(tmp_path / "a.jsonl"))


def test_an_archive_is_looked_at_in_a_process_of_its_own(tmp_path):
    path = zipped(tmp_path / "a.zip", **{"x.jsonl": LINE * 30, "y.pdf": b"%"})
    seen = look.ask(path)
    assert (seen["table"], seen["shape"], len(seen["preview"])) == ("a.zip: x.jsonl", "prompt-completion", 5)
    assert seen["skipped"][0]["file"] == "a.zip: y.pdf"
    with pytest.raises(FTError, match="a.zip is no whole ZIP archive") as refused:
        path.write_bytes(b"PK")
        look.ask(path)
    assert refused.value.hint
    assert all(isinstance(s, Skipped) for s in formats.recognise(zipped(path, **{"x.jsonl": LINE})).skipped)
