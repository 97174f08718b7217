"""The decoder and thousands of broken files: it takes no process with it, reads nothing else, and stays small."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chatassist.domain.audio import Audio, AudioKind
from tests.fixtures.fuzzing import tried, victim
from tests.fixtures.service import ROOT

COUNT = 10_000 if os.environ.get("CI") == "true" else 2_000


@pytest.mark.timeout(600)
def test_no_broken_file_does_any_harm(tmp_path: Path) -> None:
    """What it does of all it must not do, it does not: see `fuzzing`. Its last number makes the file that did."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.fuzzing", "0", str(COUNT)],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    last = (tmp_path / "number").read_text()
    assert (ended.returncode, ended.stderr) == (0, ""), f"number {last}: {ended.stderr}"
    assert int(last) == COUNT - 1
    assert "'sound'" in ended.stdout, "some are still recordings"
    assert "'audio_corrupt'" in ended.stdout


def test_another_files_sound_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="sound of another file"):
        tried(Audio(data=victim(), kind=AudioKind.WAV))
