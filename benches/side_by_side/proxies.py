"""Starts and stops what is measured: the upstream and each proxy before it, one thread each, pinned."""

import os
import shutil
import signal
import socket
import string
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterator

HERE = Path(__file__).resolve().parent
# Where Debian puts them.
MODSECURITY_MODULE = Path("/usr/lib/nginx/modules/ngx_http_modsecurity_module.so")
CORE_RULES = Path("/usr/share/modsecurity-crs/rules")


class Abort(Exception):
    """The measurement would say nothing; the message says what was seen."""


@dataclass(frozen=True)
class Cores:
    """Where things run: the proxy alone on one core, so that its queue is its own."""

    load: str
    upstream: str
    proxy: str

    @staticmethod
    def share() -> "Cores | None":
        """`None` on a single core, where there is nothing to share out."""
        cores = [str(core) for core in sorted(os.sched_getaffinity(0))]
        if len(cores) < 2:
            return None
        return Cores(load=cores[0], upstream=cores[2] if len(cores) > 2 else cores[0], proxy=cores[1])


def pinned(command: list[str], core: str | None) -> list[str]:
    """The command, held to a core."""
    return command if core is None else ["taskset", "--cpu-list", core, *command]


def free_address() -> str:
    """An address nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def program(name: str, package: str) -> str:
    """Where a program is; the directories of root are searched too, since Debian keeps nginx there."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise Abort(f"{name} is missing: apt-get install {package}")
    return found


@dataclass(frozen=True)
class Command:
    """How to start a server, and what ends it at once but in order."""

    name: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    stop: signal.Signals = signal.SIGTERM


@dataclass
class Running:
    """A server that accepts connections."""

    name: str
    address: str
    process: subprocess.Popen
    output: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        """The end of what it printed."""
        return self.output.read_text(errors="replace")[-2000:].strip() or "(it printed nothing)"

    def must_live(self) -> None:
        """A server that died explains any result."""
        if self.process.poll() is not None:
            raise Abort(f"{self.name} ended with {self.process.returncode}; it said:\n{self.said()}")


@contextmanager
def running(command: Command, address: str, core: str | None, directory: Path, patience: float = 20) -> Iterator[Running]:
    """Runs a server until the block ends; `patience` seconds to accept its first connection and to stop."""
    output = directory / f"{command.name.replace(' ', '_')}.out"
    with output.open("wb") as sink:
        process = subprocess.Popen(pinned(command.arguments, core), stdin=subprocess.DEVNULL, stdout=sink,
                                   stderr=subprocess.STDOUT, env=os.environ | command.environment)
    server = Running(command.name, address, process, output)
    try:
        await_listener(server, patience)
        yield server
    finally:
        process.send_signal(command.stop)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_listener(server: Running, patience: float) -> None:
    """Waits for the first connection to be accepted."""
    host, port = server.address.rsplit(":", 1)
    deadline = time.monotonic() + patience
    while True:
        server.must_live()
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise Abort(f"{server.name} does not listen on {server.address}; it said:\n{server.said()}") from None
            time.sleep(0.02)


def tidegate(binary: str, listen: str, upstream: str, directory: Path) -> Command:
    """Tidegate with every guard on."""
    arguments = [binary, "run", "-c", str(HERE / "tidegate.yaml"), "--upstream", f"http://{upstream}",
                 "--listen", listen, "--admin", free_address()]
    logs = {"BENCH_ACCESS_LOG": str(directory / "tidegate.access"), "BENCH_EVENTS": str(directory / "tidegate.events"),
            "STATE_DIR": str(directory / "state")}
    return Command("tidegate", arguments, logs)


def bare_pingora(binary: str, listen: str, upstream: str, directory: Path) -> Command:
    """Pingora without guards. SIGTERM would make it wait five minutes for its clients."""
    arguments = [binary, listen, upstream, str(directory / "bare_pingora.access")]
    return Command("bare pingora", arguments, stop=signal.SIGINT)


def nginx(listen: str, upstream: str, directory: Path) -> Command:
    """nginx with `proxy_pass`."""
    return nginx_with("nginx", {"modules": "", "rules": ""}, listen, upstream, directory)


def modsecurity(listen: str, upstream: str, directory: Path) -> Command:
    """The same nginx with ModSecurity and all core rules, refusing."""
    for part, package in ((MODSECURITY_MODULE, "libnginx-mod-http-modsecurity"), (CORE_RULES, "modsecurity-crs")):
        if not part.exists():
            raise Abort(f"{part} is missing: apt-get install {package}")
    rules = directory / "modsecurity.conf"
    rules.write_text(string.Template((HERE / "modsecurity.conf").read_text()).substitute(dir=directory))
    parts = {"modules": f"load_module {MODSECURITY_MODULE};",
             "rules": f"modsecurity on; modsecurity_rules_file {rules};"}
    return nginx_with("modsecurity", parts, listen, upstream, directory)


def nginx_with(name: str, parts: dict[str, str], listen: str, upstream: str, directory: Path) -> Command:
    """nginx with these parts of nginx.conf, in a directory of its own."""
    own = directory / name
    own.mkdir()
    # Started as root, its worker would change to a user that can't read our directory.
    user = "user root;" if os.geteuid() == 0 else ""
    access = f"{own}/access combined buffer=64k flush=1s"
    template = string.Template((HERE / "nginx.conf").read_text())
    written = own / "nginx.conf"
    written.write_text(template.substitute(parts, user=user, dir=own, access=access, upstream=upstream, listen=listen))
    binary = program("nginx", "nginx-light")
    return Command(name, [binary, "-p", str(own), "-e", "stderr", "-c", str(written)])
