"""A vLLM server on the CPU, started as ``phi3-industry serve-command`` says."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from phi3_industry.models.vllm_serving import plan_serving

__all__ = ["VLLM", "VllmServer"]

VLLM = Path(__file__).parents[1] / ".venv-vllm" / "bin" / "vllm"
"""The command, where ``make .venv-vllm/.installed`` puts it."""

_START_S = 600.0
_STOP_S = 60.0


class VllmServer:
    """A base model and its adapters behind vLLM's own HTTP interface, on a free loopback port.

    Args:
        model: ``"embedded"`` or a folder.
        adapters: Adapter folders by name. With one, others can be loaded while it runs.
        program: The ``vllm`` command.
        arguments: More arguments for it.
        key: The API key that it wants; ``None`` answers everybody.
        threads: How many cores it computes on; ``None`` lets it choose.
    """

    def __init__(
        self,
        model: str = "embedded",
        *,
        adapters: Mapping[str, Path] | None = None,
        program: Path = VLLM,
        arguments: tuple[str, ...] = (),
        key: str | None = None,
        threads: int | None = None,
    ) -> None:
        if not program.exists():
            raise RuntimeError(
                f"There is no vLLM at {program}. Install it: make {VLLM.parents[1].name}/.installed"
            )
        self.port = _free_port()
        plan = plan_serving(model, adapters=adapters, dtype="float32", port=self.port)
        self.name = plan.name
        self.command = [str(program), *plan.command[1:], *arguments]
        self._environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_API_KEY": key or "",
        }
        if threads is not None:
            cores = sorted(os.sched_getaffinity(0))[:threads]
            self._environment["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """What ``base_url`` takes."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers."""
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(
                self.command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # its engine is a process of its own
            )
            limit = time.monotonic() + _START_S
            while time.monotonic() < limit and self.is_running:
                if self._is_healthy():
                    return
                time.sleep(0.5)
            self.kill()
            log.seek(0)
            said = log.read().decode(errors="replace")[-3000:]
        raise RuntimeError(f"The server did not start: {' '.join(self.command)}\n{said}")

    def pause(self) -> None:
        """Let it hang: connections are taken and nothing comes."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Let all its processes die on the spot."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(_STOP_S)

    def requests_under_way(self) -> int:
        """How many requests it computes at the moment or has in its queue, by its own count."""
        found = 0.0
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=60) as reply:
            for line in reply.read().decode().splitlines():
                if line.startswith(("vllm:num_requests_running", "vllm:num_requests_waiting{")):
                    found += float(line.rsplit(maxsplit=1)[1])
        return int(found)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                return True
        except OSError:
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:  # all have ended
                return


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
