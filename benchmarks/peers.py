"""Environments of the peers: torch and transformers of this environment, plus the peer.

`python benchmarks/peers.py` makes those that are missing, in benchmarks/peers/. Where nothing can be
installed, RLHF_PEERS names a folder with one folder of packages per peer (`pip install --target`).
"""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from roster import PEERS

HERE = Path(__file__).resolve().parent


def packages_of(name: str) -> Path | None:
    """Return the folder of existing packages of a peer, None without RLHF_PEERS."""
    folder = os.environ.get("RLHF_PEERS")
    return Path(folder).resolve() / name if folder else None


def python_of(name: str) -> Path:
    if packages_of(name):
        return Path(sys.executable)
    return HERE / "peers" / name / "bin" / "python"


def make(name: str) -> None:
    """Make a venv with this one's packages after its own; only the peer is installed into it."""
    if packages_of(name):
        return
    folder, mark = HERE / "peers" / name, HERE / "peers" / name / ".ready"
    listed = HERE / PEERS[name]
    if mark.is_file() and mark.read_text() == listed.read_text():
        return
    venv.create(folder, clear=True, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    place = folder / "lib" / version / "site-packages" / "main_environment.pth"
    place.write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python_of(name)), "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--requirement", str(listed)], check=True)
    mark.write_text(listed.read_text())


if __name__ == "__main__":
    for peer in PEERS:
        make(peer)
        print(python_of(peer))
