"""The headless front door: `python -m ft_core VERB ...` does all that the page does, with the same functions.

Exit status: 0 done; 2 bad input or refused; 3 the job failed; 130 interrupted, work kept; 70 a defect of ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import time
import traceback
from typing import Any, NoReturn

from . import verbs, verbs_data, verbs_files, verbs_give
from .errors import FTError
from .out import JobFailed, JobStopped, Out
from .recipe import DataRecipe, GenerateRecipe, TrainRecipe, docs
from .workspace import Workspace

DONE, REFUSED, JOB_FAILED, DEFECT, INTERRUPTED = 0, 2, 3, 70, 130


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FTError(message, f"{self.format_usage().strip()}")


def main(argv: list[str] | None = None) -> int:
    workspace = None
    try:
        arguments = _parser().parse_args(argv)
        workspace = Workspace.at(arguments.home)
        result = arguments.verb(arguments, workspace, Out(arguments.json))
    except FTError as error:
        return _complain(error, JOB_FAILED if isinstance(error, JobFailed) else REFUSED)
    except JobStopped as stopped:
        Out(arguments.json).result(stopped.result)
        return INTERRUPTED
    except KeyboardInterrupt:
        print("interrupted; what was done is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our words has left, as `| head -1` does; a job goes on without us
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit complains
        return INTERRUPTED
    except Exception:  # the front door's last resort
        return _defect(workspace)
    return result if isinstance(result, int) else DONE


def _complain(error: FTError, status: int) -> int:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return status


def _defect(workspace: Workspace | None) -> int:
    trace = traceback.format_exc()
    if workspace is None:
        print(trace, file=sys.stderr)
        return DEFECT
    log = workspace.home / "log.txt"
    try:
        with log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%F %T')}\n{trace}\n")
    except OSError as error:
        print(trace, file=sys.stderr)
        return _complain(FTError(f"{log} cannot be written: {error.strerror}", "Is the disk full?"), DEFECT)
    return _complain(FTError("internal", f"This is a defect of FT Flow; the trace is in {log}."), DEFECT)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m ft_core", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--home", metavar="DIR", help="where everything lies (default: FT_HOME, else ~/.ft_flow)")
    parser.add_argument("--project", metavar="NAME", default="default", help="the project (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout; the last is the result")
    sub = parser.add_subparsers(required=True, metavar="VERB", parser_class=_Parser)

    run = _verb(sub, verbs.run, "all that a recipe names, in order: data, generate, train, compare, export")
    run.add_argument("recipe")
    _data(sub)
    generate = _verb(sub, verbs.generate, "write rows with a teacher model; its key is read from OPENAI_API_KEY")
    generate.add_argument("-n", "--rows", type=int, required=True, metavar="N", help="how many")
    generate.add_argument("--system", metavar="TEXT", help="the project's system prompt: who the assistant is")
    _knobs(generate, GenerateRecipe, "teacher", "model", "temperature", "max_tokens", "seed")
    train = _verb(sub, verbs.train, "train an adapter on the project's rows")
    train.add_argument("recipe", nargs="?", help="a recipe file (default: the Balanced preset)")
    train.add_argument("--dry-run", action="store_true", help="only say what would happen and what would go wrong")
    train.add_argument("--measure", action="store_true", help="with --dry-run: measure the speed of three steps first")
    _knobs(train, TrainRecipe, "steps", "seed")
    _verb(sub, verbs.list_jobs, "the project's jobs, newest first", "jobs")
    for verb, text in (
        (verbs.stop, "stop a job after its current step; what it has is kept"),
        (verbs.show, "a job as it stands"),
    ):
        _verb(sub, verb, text).add_argument("job")
    resume = _verb(sub, verbs.resume, "go on with a job that was stopped, failed or interrupted")
    resume.add_argument("job")
    resume.add_argument("--steps", type=int, metavar="N", help="of a training, also a finished one: until N in all")
    rename = _verb(sub, verbs.rename, "give a job a name, which `jobs` lists and the page shows")
    rename.add_argument("job")
    rename.add_argument("name")
    chat = _verb(sub, verbs.chat, "ask the model before and after training, in one batch")
    chat.add_argument("prompt")
    chat.add_argument("--side", choices=("before", "after", "both"), default="both")
    chat.add_argument("--greedy", action="store_true", help="always take the likeliest token, in fp32")
    chat.add_argument("--max-tokens", type=int, metavar="N", help="longest answer, in tokens")
    chat.add_argument("--job", help="the training to ask (default: the newest)")
    evaluate = _verb(sub, verbs.evaluate, "held-out loss before and after, with the interval of the difference")
    evaluate.add_argument("job", nargs="?", help="the training (default: the newest)")
    _export(sub)
    _verb(sub, verbs.doctor, "what this machine can do, what is missing, how to get it")
    _verb(sub, verbs.prepare, "get the built-in model ready")
    for verb, name in ((verbs.work, "work"), (verbs.compare_engine, "compare-engine")):
        _verb(sub, verb, "", name).add_argument("folder")  # what a child process is started with
    _verb(sub, verbs.answer, "")
    return parser


def _verb(sub: Any, function: Any, text: str, name: str = "") -> argparse.ArgumentParser:
    listed = {"help": text} if text else {}  # a verb without a text is for child processes, and not listed
    parser = sub.add_parser(name or function.__name__, **listed)
    parser.set_defaults(verb=function)
    return parser


def _knobs(parser: argparse.ArgumentParser, section: type, *names: str) -> None:
    """Options for recipe fields, each with the recipe's own text; left out, the recipe's value stands."""
    kinds = {f.name: type(f.default) for f in dataclasses.fields(section)}
    for name in names:
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kinds[name], help=docs(section)[name].replace("%", "%%")
        )


def _data(sub: Any) -> None:
    data = sub.add_parser("data", help="the project's rows").add_subparsers(
        required=True, metavar="VERB", parser_class=_Parser
    )
    _take(data)
    _give(data)
    _verb(data, verbs_data.check, "what is wrong with the rows", "check")
    split = _verb(data, verbs_data.split, "choose the rows held out; rows chosen before stay", "split")
    split.add_argument("--heldout", type=float, metavar="SHARE", help="0 to 0.5 (default 0.1)")
    split.add_argument("--seed", type=int, metavar="N")
    split.add_argument(
        "--by", dest="group", metavar="WHAT", help=f"equal, question, near or source. {docs(DataRecipe)['group']}"
    )
    _rows(data)
    _verb(data, verbs_data.undo, "take back the last change", "undo")
    _verb(data, verbs_data.redo, "do it again", "redo")
    _verb(data, verbs_data.stats, "how many rows, and their fingerprint", "stats")


def _take(data: Any) -> None:
    take = _verb(data, verbs_files.take, "import files, folders, addresses, or a dataset of the Hub", "import")
    take.add_argument(
        "files",
        nargs="+",
        metavar="SOURCE",
        help="CSV, TSV, JSON, JSONL, Parquet, Arrow, text; .gz of these; .zip; a folder; s3://, https://, ...; "
        "hub:owner/name",
    )
    take.add_argument("--partial", action="store_true", help="take what is readable of a file whose syntax breaks")
    look = _verb(data, verbs_files.look, "what a source has and what its columns are taken for", "look")
    look.add_argument("source", metavar="SOURCE", help="as for import")
    for parser in (take, look):
        parser.add_argument("--map", action="append", default=[], metavar="FIELD=COLUMN", help="e.g. prompt=Question")
        parser.add_argument("--shape", default="", help="what the columns make, where they do not say so themselves")
        hub = parser.add_argument_group("of a dataset of the Hub")
        hub.add_argument("--config", default="", metavar="NAME", help="its configuration")
        hub.add_argument("--split", default="", metavar="NAME", help="default: train")
        hub.add_argument("--rows", type=int, default=0, metavar="N", help="only so many (default: all)")
        hub.add_argument("--random", action="store_true", help="rows by chance, each out of the next 10,000")
        hub.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed draws the same rows")


def _give(data: Any) -> None:
    give = _verb(data, verbs_give.give, "write the rows to a file, or to a folder that `datasets` loads", "export")
    give.add_argument("file", help="its suffix decides the format: .jsonl, .json, .csv, .parquet; none is a folder")
    give.add_argument("--split", choices=("train", "heldout"), help="only these rows")
    push = _verb(data, verbs_give.push, "put the rows on the Hugging Face Hub, with a card; HF_TOKEN is read now")
    push.add_argument("repo", metavar="OWNER/NAME", help="a name alone is the token's owner's")
    push.add_argument("--public", action="store_true", help="for everybody to read (default: private)")
    push.add_argument("--licence", default="", metavar="ID", help="the licence of the rows, such as cc-by-4.0")
    for parser in (give, push):
        parser.add_argument(
            "--shape",
            default="messages",
            help="messages, sharegpt, alpaca, prompt-completion, contexts, text, preference (better and worse)",
        )
    tokens = _verb(data, verbs_give.prepare, "write the rows as a base model's tokens and labels, for any trainer")
    tokens.add_argument("folder", help="where the folder goes that `datasets` loads")
    tokens.add_argument("--base", metavar="MODEL", help="built-in, a Hub id or a folder (default: the recipe's)")
    tokens.add_argument("--max-length", type=int, metavar="N", help=docs(TrainRecipe)["max_length"])
    tokens.add_argument("--pack", action="store_true", help="put whole conversations together, up to that length")


def _rows(data: Any) -> None:
    find = _verb(data, verbs_data.search, "rows that have a text, in any case", "search")
    find.add_argument("text")
    find.add_argument("--limit", type=int, default=20, metavar="N", help="how many are shown (default: %(default)s)")
    find.add_argument("--sort", default="position", metavar="BY", help="position, chars, turns, status, split, source")
    find.add_argument("--descending", action="store_true", help="the largest first")
    put = _verb(data, verbs_data.replace_text, "find and replace in all rows, as one change", "replace")
    put.add_argument("--find", required=True, metavar="TEXT")
    put.add_argument("--with", required=True, dest="put", metavar="TEXT", help=r"with --regex, \1 is the first group")
    put.add_argument("--regex", action="store_true", help="--find is a regular expression")
    put.add_argument("--ignore-case", action="store_true")
    put.add_argument("--role", default="", help="only in messages of: system, user, assistant, tool")
    put.add_argument("--search", default="", metavar="TEXT", help="only in rows that have this text")
    put.add_argument("--preview", action="store_true", help="only say what would change")
    for parser in (find, put):
        parser.add_argument("--view", default="all", help="all, review, rejected, train, heldout")
    named = _verb(data, verbs_data.versions, "named versions of the rows, the newest first", "versions")
    named.add_argument("--limit", type=int, default=100, metavar="N", help="how many rows of a --diff are listed")
    do = named.add_mutually_exclusive_group()
    do.add_argument("--name", help="name the rows as they are now")
    do.add_argument("--diff", nargs="+", metavar="NAME", help="what changed from one version to another, or to now")
    do.add_argument("--restore", metavar="NAME", help="go back to a version; undo takes that back")


def _export(sub: Any) -> None:
    export = _verb(sub, verbs.export, "make files that run elsewhere, each checked before it is offered")
    export.add_argument(
        "--to",
        action="append",
        required=True,
        metavar="KIND",
        help="adapter, merged, gguf:F16, gguf:Q8_0, gguf:Q4_K_M, ollama or hub; may be given more than once",
    )
    export.add_argument("--out", metavar="DIR", help="where the files go (default: the job's folder)")
    export.add_argument("--job", help="the training (default: the newest)")
    export.add_argument("--name", help="the model's name")
    export.add_argument("--host", help="address of a running Ollama (default: OLLAMA_HOST, else this machine's)")
    export.add_argument("--repo", help="the Hub repository, user/name; the token is read from HF_TOKEN")
    export.add_argument(
        "--push", default="", help="what goes to the Hub: adapter (where there is one), merged, gguf:Q4_K_M, ..."
    )


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` and a supervisor mean what Ctrl-C means
    for stream in (sys.stdout, sys.stderr):  # JSON is UTF-8 whatever the terminal's language, and odd names print too
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(main())
