"""Models out of registry packages, fetched with the real pip from a folder on this disk."""

from __future__ import annotations

import hashlib
import socket
import sys
import tarfile
import threading
import time
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from byzerllm import models
from byzerllm.errors import ConfigError, DeployError, ModelFileError, ModelNotFound

CONTENT = b"GGUF" + bytes(range(256)) * 40
MEMBER = "tiny_shelf/Tiny.Q4_1.gguf"
ABOUT = "Metadata-Version: 2.1\nName: tiny-shelf\nVersion: 1.0\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the only place where pip looks for packages."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("BYZERLLM_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def executed(tmp_path: Path) -> Path:
    """Return a file that appears when any code of the package runs."""
    return tmp_path / "executed"


@pytest.fixture
def tiny(shelf: Path, executed: Path, monkeypatch: pytest.MonkeyPatch) -> models.Packaged:
    """Return the catalogue's entry "tiny"; its wheel is on the shelf."""
    code = f"open({str(executed)!r}, 'w').close()\n"
    wheel = shelf / "tiny_shelf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr("tiny_shelf/__init__.py", code)
        archive.writestr("tiny_shelf.pth", "import tiny_shelf\n")
        archive.writestr("tiny_shelf-1.0.dist-info/METADATA", ABOUT)
        archive.writestr("tiny_shelf-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("tiny_shelf-1.0.dist-info/RECORD", "")
    return listed(
        monkeypatch,
        models.Packaged(
            name="tiny",
            title="A tiny model",
            licence="Apache-2.0",
            package="tiny-shelf",
            version="1.0",
            wheel_sha256=sha256(wheel.read_bytes()),
            wheel_size=wheel.stat().st_size,
            member=MEMBER,
            sha256=sha256(CONTENT),
            size=len(CONTENT),
        ),
    )


def listed(monkeypatch: pytest.MonkeyPatch, model: models.Packaged) -> models.Packaged:
    monkeypatch.setitem(models.CATALOGUE, model.name, model)
    return model


def left_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


# -- fetching ---------------------------------------------------------------------------------


def test_a_model_lands_in_the_cache_and_nothing_else_does(
    tiny: models.Packaged, tmp_path: Path
) -> None:
    said: list[str] = []

    path = models.pull("tiny", said.append)

    assert path == tmp_path / "home" / "models" / "tiny" / "Tiny.Q4_1.gguf"
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert said[0] == "Downloading tiny-shelf 1.0 (0 MB)"
    assert said[-1] == "Checking it and taking the model out"
    assert models.local_files() == [path]
    models.verify("tiny")


def test_no_code_of_the_package_runs(tiny: models.Packaged, executed: Path) -> None:
    models.pull("tiny")
    assert not executed.exists()


def test_a_source_package_is_not_taken_since_building_it_runs_its_code(
    tiny: models.Packaged, shelf: Path, executed: Path, tmp_path: Path
) -> None:
    (shelf / "tiny_shelf-1.0-py3-none-any.whl").unlink()
    setup = tmp_path / "setup.py"
    setup.write_text(f"open({str(executed)!r}, 'w').close()\n")
    info = tmp_path / "PKG-INFO"
    info.write_text(ABOUT)
    with tarfile.open(shelf / "tiny_shelf-1.0.tar.gz", "w:gz") as archive:
        archive.add(setup, "tiny_shelf-1.0/setup.py")
        archive.add(info, "tiny_shelf-1.0/PKG-INFO")

    with pytest.raises(DeployError, match="No matching distribution"):
        models.pull("tiny")
    assert not executed.exists()


def test_pulling_again_does_nothing(tiny: models.Packaged, shelf: Path) -> None:
    path = models.pull("tiny")
    before = path.stat()
    (shelf / "tiny_shelf-1.0-py3-none-any.whl").unlink()  # pip would fail now
    said: list[str] = []

    assert models.pull("tiny", said.append) == path

    assert said == []
    assert path.stat() == before


def test_a_file_of_another_size_is_fetched_anew(tiny: models.Packaged) -> None:
    path = models.pull("tiny")
    path.write_bytes(CONTENT[:100])
    assert models.pull("tiny").read_bytes() == CONTENT


def test_a_changed_file_of_the_same_size_is_found_by_verify(tiny: models.Packaged) -> None:
    path = models.pull("tiny")
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(ModelFileError, match=f"{tiny.sha256} was due"):
        models.verify("tiny")


def test_two_who_pull_at_once_both_get_it(tiny: models.Packaged) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(models.pull("tiny"))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert paths == [tiny.path] * 2
    assert tiny.path.read_bytes() == CONTENT
    assert left_in(tiny.path.parent) == [tiny.path]


def test_a_pull_that_is_removed_can_be_pulled_again(tiny: models.Packaged) -> None:
    path = models.pull("tiny")
    assert models.remove("tiny") == path
    assert models.remove("tiny") is None
    assert models.pull("tiny") == path


# -- what can go wrong ------------------------------------------------------------------------


def test_another_package_than_the_catalogues_is_not_used(
    tiny: models.Packaged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed(monkeypatch, replace(tiny, wheel_sha256="0" * 64))

    with pytest.raises(ModelFileError, match=r"of the package tiny-shelf is [0-9a-f]{64}, and 00"):
        models.pull("tiny")
    assert left_in(tmp_path / "home") == []
    with pytest.raises(ModelNotFound):
        models.path("tiny")


def test_another_file_than_the_catalogues_is_not_used(
    tiny: models.Packaged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed(monkeypatch, replace(tiny, sha256="0" * 64))

    with pytest.raises(ModelFileError, match=r"SHA-256 of Tiny\.Q4_1\.gguf"):
        models.pull("tiny")
    assert left_in(tmp_path / "home") == []


def test_a_package_that_is_not_there_gives_pips_reason(
    tiny: models.Packaged, shelf: Path, tmp_path: Path
) -> None:
    (shelf / "tiny_shelf-1.0-py3-none-any.whl").unlink()

    with pytest.raises(DeployError) as caught:
        models.pull("tiny")

    said = str(caught.value)
    assert said.startswith("pip could not fetch tiny-shelf 1.0: ")
    assert "No matching distribution found for tiny-shelf==1.0" in said
    assert left_in(tmp_path / "home") == []


def test_only_the_catalogues_version_is_fetched(
    tiny: models.Packaged, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(monkeypatch, replace(tiny, version="2.0"))
    with pytest.raises(DeployError, match=r"tiny-shelf==2\.0"):
        models.pull("tiny")


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    tiny: models.Packaged, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed(monkeypatch, replace(tiny, size=1 << 60))
    said: list[str] = []

    with pytest.raises(
        DeployError, match=r"MB free and 1099511627776 MB are needed.*BYZERLLM_HOME"
    ):
        models.pull("tiny", said.append)
    assert said == []
    assert left_in(tmp_path / "home") == []


def test_a_python_without_pip_is_told_how_to_get_it(
    tiny: models.Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    bare = str(tmp_path / "bare" / "bin" / "python")
    monkeypatch.setattr(sys, "executable", bare)
    with pytest.raises(DeployError, match=f"pip is needed to fetch 'tiny'; run: {bare} -m ensurep"):
        models.pull("tiny")


def test_who_gives_up_waiting_leaves_neither_pip_nor_files(
    tiny: models.Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{silent.getsockname()[1]}/")
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "8")
    monkeypatch.setenv("PIP_RETRIES", "0")
    started = time.monotonic()

    def gone(message: str) -> None:
        if " of " in message:
            raise BrokenPipeError("nobody reads the progress any more")

    with silent, pytest.raises(BrokenPipeError):
        models.pull("tiny", gone)
    assert time.monotonic() - started < 5
    assert left_in(tmp_path / "home") == []


# -- names and paths --------------------------------------------------------------------------


def test_a_name_that_is_unknown_is_answered_with_those_there_are(tiny: models.Packaged) -> None:
    for ask in (models.find, models.path, models.path_or_pull, models.pull, models.remove):
        with pytest.raises(ConfigError, match=r"no model 'gpt-9' to fetch; there is smollm2, tiny"):
            ask("gpt-9")


def test_the_path_of_a_model_that_is_not_here_says_how_to_fetch_it(tiny: models.Packaged) -> None:
    with pytest.raises(ModelNotFound, match=r"Run: byzerllm models pull tiny$"):
        models.path("tiny")


def test_path_or_pull_fetches_only_what_is_missing(tiny: models.Packaged, shelf: Path) -> None:
    path = models.path_or_pull("tiny")
    (shelf / "tiny_shelf-1.0-py3-none-any.whl").unlink()
    assert models.path_or_pull("tiny") == models.path("tiny") == path


@pytest.mark.parametrize(("given", "short"), [("a/b/My.GGUF", "My"), ("tiny", "tiny")])
def test_a_file_of_ones_own_is_its_own_path_and_named_after_itself(given: str, short: str) -> None:
    assert models.short_name(given) == short
    if given.endswith("GGUF"):
        assert models.path(given) == models.path_or_pull(given) == Path(given)


def test_the_cache_is_where_byzerllm_home_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYZERLLM_HOME", str(tmp_path / "elsewhere"))
    assert models.find("smollm2").path.is_relative_to(tmp_path / "elsewhere")
    assert models.local_files() == []


def test_the_catalogue_keeps_its_promise(smollm2: Path) -> None:
    models.verify("smollm2")
    assert smollm2 == models.find("smollm2").path
