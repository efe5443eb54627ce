"""Environments of their own: the wheel as a user gets it, and the fast tests on other Pythons.

These fetch what the lock names from the package registry; pip checks the hashes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parent.parent.parent
LOCK = ROOT / "requirements" / "dev.txt"
NO_COPY = (".venv*", ".git", ".*_cache", ".hypothesis", "__pycache__", "build", "dist")
OLDEST_SUPPORTED = (3, 10)


def run(*command: str | Path, cwd: Path, timeout: float = 900) -> str:
    """Run a program as if from a fresh shell; its output."""
    ours = ("PYTHON", "VIRTUAL_ENV", "PYTEST", "BYZERLLM")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{command[:4]}:\n{done.stdout[-6000:]}"
    return done.stdout


def environment(folder: Path, python: str) -> Path:
    """Make a virtual environment; its folder of programs."""
    run(python, "-m", "venv", folder, cwd=folder.parent)
    return folder / "bin"


# -- the wheel --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = shutil.copytree(ROOT, folder / "checkout", ignore=shutil.ignore_patterns(*NO_COPY))
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=copy)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    here = ROOT / "src"
    source = {str(path.relative_to(here)) for path in here.rglob("*.py")}
    info = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"
    assert {name for name in names if name.endswith(".py")} == source
    rest = {name for name in names if not name.endswith(".py")}
    assert all(name.startswith(info) or name == "byzerllm/py.typed" for name in rest), rest
    assert {f"{info}entry_points.txt", f"{info}licenses/LICENSE", "byzerllm/py.typed"} <= rest
    assert not [name for name in names if name.endswith(".pth") or "test_" in name]


def test_a_clean_installation_answers_rightly(wheel: Path, tmp_path: Path, smollm2: Path) -> None:
    (block, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    bin = environment(tmp_path / "env", sys.executable)  # noqa: A001
    pip = (bin / "python", "-m", "pip", "--disable-pip-version-check")

    # From the lock comes what may be installed, from the wheel what is: it must ask for all it
    # needs, since nothing of the tools for tests gets in.
    shelf = tmp_path / "shelf"
    run(*pip, *("download", "-q", "--require-hashes", "--only-binary", ":all:"), *("-d", shelf),
        *("-r", LOCK), cwd=elsewhere)  # fmt: skip
    run(*pip, *("install", "-q", "--no-index", "--find-links", shelf),
        f"byzerllm[local] @ {wheel.as_uri()}", cwd=elsewhere)  # fmt: skip

    assert "No broken requirements" in run(*pip, "check", cwd=elsewhere)
    assert "pytest" not in run(*pip, "list", cwd=elsewhere)
    where = run(bin / "python", "-c", "import byzerllm; print(byzerllm.__file__)", cwd=elsewhere)
    assert where.startswith(str(tmp_path / "env"))
    said = run(bin / "python", "-c", block, cwd=elsewhere)
    assert "The capital of Germany is Berlin." in said
    assert str(smollm2) in run(bin / "byzerllm", "models", cwd=elsewhere)
    report = run(bin / "byzerllm", "doctor", cwd=elsewhere)
    assert "smollm2" in report
    assert "problem" not in report
    assert list(elsewhere.iterdir()) == []


# -- other Pythons ----------------------------------------------------------------------------


def pythons() -> dict[tuple[int, int], str]:
    """The supported Pythons of this machine that can make an environment, by version."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: dict[tuple[int, int], str] = {}
    for minor in range(OLDEST_SUPPORTED[1], 20):
        name = f"python3.{minor}"
        candidates = [shutil.which(name), *map(str, sorted(versions.glob(f"*/bin/{name}")))]
        for candidate in filter(None, candidates):
            probe = [candidate, "-c", "import ensurepip, ssl, venv"]
            if subprocess.run(probe, capture_output=True).returncode == 0:
                found[3, minor] = candidate
                break
    return found


@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_the_fast_tests_pass_on_another_python(which: str, tmp_path: Path) -> None:
    found, own = pythons(), sys.version_info[:2]
    version = min(found, default=own) if which == "oldest" else max(found, default=own)
    if version == own:
        pytest.skip(f"the {which} Python here is {own}, on which `make test` runs; found {found}")
    copy = shutil.copytree(ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(*NO_COPY))
    bin = environment(tmp_path / "env", found[version])  # noqa: A001
    pip = (bin / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
    run(*pip, "--require-hashes", "--only-binary", ":all:", "-r", LOCK, cwd=copy)
    run(*pip, "--no-deps", "--no-build-isolation", "-e", ".", cwd=copy)

    said = run(bin / "python", "-m", "pytest", "-q", "-m", "not local and not soak", cwd=copy)

    print(f"Python {version}: {said.strip().splitlines()[-1]}")
    assert re.search(r"\d{2,} passed", said)
