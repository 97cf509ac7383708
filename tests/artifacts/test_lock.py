"""The lock of a run: its holder, and files that are not a lock."""

import os
import subprocess
import sys

import pytest

from rlhf_cli.artifacts.lock import last_command, locked
from rlhf_cli.artifacts.manifest import ArtifactError


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_lock_that_links_to_another_file_is_refused_and_that_file_is_kept(tmp_path, link):
    linked_file = tmp_path / "precious"
    linked_file.write_text("precious")
    (tmp_path / "run").mkdir()
    link(linked_file, tmp_path / "run" / ".lock")
    with pytest.raises(ArtifactError, match=r"\.lock is .*no lock file; remove it"):
        with locked(tmp_path / "run", "rlhf run"):
            pass
    assert linked_file.read_text() == "precious"


def test_the_last_command_of_a_run_is_known_after_its_end(tmp_path):
    assert last_command(tmp_path) is None
    command = "rlhf run " + "x" * 5000
    with locked(tmp_path, command):
        pass
    assert last_command(tmp_path) == command
    (tmp_path / ".lock").write_text("[]")
    assert last_command(tmp_path) is None


HOLD_LOCK = """
import sys, pathlib
from rlhf_cli.artifacts.lock import locked
with locked(pathlib.Path(sys.argv[1]), "rlhf run"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_held_lock_names_its_process_and_is_free_after_its_end(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ArtifactError, match=f"in use by process {holder.pid} on .*rlhf run"):
        locked(tmp_path, "another").__enter__()
    holder.kill()
    holder.communicate()
    with locked(tmp_path, "another"):
        pass
