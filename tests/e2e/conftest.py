"""Starts the real program, in front of its own demo app, for clients that people really use."""

import os
import pathlib
import re
import socket
import subprocess
import time

import httpx2
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("TIDEGATE_BIN", ROOT / "target/debug/tidegate"))
START_SECONDS = 20


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1:%d" % probe.getsockname()[1]


class Tidegate:
    """One running program: `url` for traffic, `admin` for operators, `folder` of its files, `output` for what it printed."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        listen, admin = free_address(), free_address()
        self.url, self.admin = f"http://{listen}", f"http://{admin}"
        self._out, self._err = folder / "stdout", folder / "stderr"
        # Nothing from the caller's environment may set a limit.
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        # Nor may anything be kept in the caller's own directories.
        environment["STATE_DIR"] = str(folder / "state")
        with self._out.open("wb") as out, self._err.open("wb") as err:
            command = [PROGRAM, *arguments, "--listen", listen, "--admin", admin]
            self._process = subprocess.Popen(command, stdout=out, stderr=err, cwd=folder, env=environment)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def output(self):
        return self._out.read_text()

    def wait_for_output(self, pattern):
        """What it has printed that matches. It is ready before it has said all that it says at its start."""
        return self._wait_for(lambda: re.search(pattern, self.output, re.MULTILINE), f"has not printed {pattern!r}")

    def _is_ready(self):
        try:
            return httpx2.get(f"{self.admin}/readyz", timeout=1).status_code == 200
        except httpx2.TransportError:
            return False

    def _wait_until_ready(self):
        self._wait_for(self._is_ready, "is not ready")

    def _wait_for(self, condition, lacking):
        deadline = time.monotonic() + START_SECONDS
        while not (met := condition()):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                state = f"ended with {self._process.returncode}" if ended else lacking
                pytest.fail(f"{PROGRAM} {state}:\n{self.output}\n{self._err.read_text()}")
            time.sleep(0.02)
        return met

    def stop(self):
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def running(folder, *arguments):
    tidegate = Tidegate(folder, *arguments)
    yield tidegate
    tidegate.stop()


@pytest.fixture
def demo(tmp_path):
    """`tidegate demo` with nothing used up."""
    yield from running(tmp_path, "demo")


@pytest.fixture(scope="session")
def direct(tmp_path_factory):
    """The demo app's own address, with no gate before it. Its gate stands idle."""
    for tidegate in running(tmp_path_factory.mktemp("demo"), "demo"):
        yield tidegate.wait_for_output(r"^upstream\s+(http://\S+)$")[1]


@pytest.fixture(scope="session")
def gate(tmp_path_factory, direct):
    """A gate that lets a whole test run's AI calls through."""
    folder = tmp_path_factory.mktemp("gate")
    settings = folder / "tidegate.yaml"
    settings.write_text(f"upstream: {direct}\nlimits:\n  ai: {{windows: [1000/min]}}\n")
    for tidegate in running(folder, "run", "-c", settings):
        yield tidegate.url


@pytest.fixture
def strict(tmp_path, direct):
    """A gate with default limits, of which this test has all to itself."""
    settings = tmp_path / "tidegate.yaml"
    settings.write_text(f"upstream: {direct}\n")
    for tidegate in running(tmp_path, "run", "-c", settings):
        yield tidegate.url


@pytest.fixture
def key(request):
    """A key of the test's own, so that no test draws from another's limits."""
    return "sk-e2e-" + re.sub(r"\W+", "-", request.node.name)


@pytest.fixture
def same(direct, gate):
    """Makes one call at both doors and answers with the result, which must be the same."""

    def call_both(call):
        without, through = call(direct), call(gate)
        assert through == without
        return through

    return call_both
