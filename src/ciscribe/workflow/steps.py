"""A job: a folder whose files are made by steps, each done once for each state of what it depends on.

A step is signed with a fingerprint of its part of the configuration, its inputs and the steps before, kept in
``provenance.json``; a step whose fingerprint and files are there is not done again. Steps meet through the folder
only, so each can be run alone, and a job that was stopped goes on where it was.
"""

import json
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from ciscribe.errors import ConfigError, DataMissingError
from ciscribe.provenance import provenance, write_json


class Job(ABC):
    """A folder and its steps; a subclass names the steps and does each in a method ``_<step>``.

    Parameters
    ----------
    folder
        Where everything goes.
    seed
        Written into the provenance of every step.
    tell
        Called with one line of progress at a time.
    progress
        Show bars.
    """

    STEPS: ClassVar[tuple[str, ...]]
    """In order; each depends on the one before."""
    OUTPUTS: ClassVar[dict[str, tuple[str, ...]]]
    """Files without which a step is not done."""

    def __init__(self, folder: Path, *, seed: int, tell: Callable[[str], None] = print, progress: bool = True):
        self.folder, self.seed, self.tell, self.progress = folder, seed, tell, progress

    @abstractmethod
    def fingerprint(self, step: str) -> str:
        """What a step depends on, as a short digest: its configuration, its inputs and the steps before."""

    def _state(self) -> dict[str, Any]:
        path = self.folder / "provenance.json"
        return json.loads(path.read_text()) if path.is_file() else {"steps": {}}

    def is_done(self, step: str) -> bool:
        """Whether a step has been done with the present configuration and inputs."""
        done = self._state()["steps"].get(step, {}).get("fingerprint") == self.fingerprint(step)
        return done and all((self.folder / f).exists() for f in self.OUTPUTS[step])

    def run(self, until: str | None = None, *, again: bool = False) -> Path:
        """Do every step up to `until` that is not done yet.

        Parameters
        ----------
        until
            Last step wanted; None is all.
        again
            Do that step even when it is done.

        Returns
        -------
        Path
            The folder.
        """
        until = until or self.STEPS[-1]
        if until not in self.STEPS:
            raise ConfigError(f"step is one of {', '.join(self.STEPS)}; got {until!r}")
        for step in self.STEPS[:self.STEPS.index(until) + 1]:
            if self.is_done(step) and not (again and step == until):
                self.tell(f"{step}: done before")
                continue
            start = time.perf_counter()
            self.tell(f"{step}: …")
            if again and step == until == "train":
                shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            facts = getattr(self, f"_{step}")()
            seconds = round(time.perf_counter() - start, 1)
            done = self._state()["steps"]
            state: dict[str, Any] = {"steps": {k: done[k] for k in self.STEPS[:self.STEPS.index(step)] if k in done}}
            state["steps"][step] = {"fingerprint": self.fingerprint(step), "seconds": seconds,
                                    "provenance": provenance(seed=self.seed), **(facts or {})}
            write_json(self.folder / "provenance.json", state)
            if step == "train":  # a finished training needs no checkpoint, and a changed plan starts anew
                shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
            self.tell(f"{step}: {seconds:.1f} s")
        return self.folder


def file_state(name: str, path: Path) -> list[Any]:
    """Name, size and time of an input file, for a fingerprint.

    Raises
    ------
    DataMissingError
        When it is not there.
    """
    if not path.is_file():
        raise DataMissingError(f"the {name} file is not there: {path}; check the root and the path in the "
                               "configuration (CISCRIBE_DATA sets the root of the shipped ones)")
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]
