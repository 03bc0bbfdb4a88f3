"""A Chroma server, in a folder of its own, that a test may kill."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["ChromaServer"]

_START_S = 120.0


class ChromaServer:
    """The server that the package ``chromadb`` brings, on a free loopback port."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chroma-"))
        with socket.create_server((self.host, 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def is_running(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    def start(self) -> None:
        """Start it and wait until it answers."""
        program = Path(sys.executable).with_name("chroma")
        if not program.exists():
            raise RuntimeError(
                "There is no Chroma server: the package 'chromadb' is not installed. Run these "
                "tests with: make test-integration"
            )
        log = self.folder / "log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [program, "run", "--path", "data", "--host", self.host, "--port", str(self.port)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"Chroma did not start: {log.read_text(errors='replace')}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Let it die on the spot."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def remove(self) -> None:
        """Kill it and delete its folder."""
        if self.is_running:
            self.kill()
        shutil.rmtree(self.folder)

    def _answers(self) -> bool:
        try:
            socket.create_connection((self.host, self.port), timeout=1.0).close()
        except OSError:
            return False
        return True
