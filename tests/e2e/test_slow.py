"""slowhttptest holds connections open with heads and bodies that drip; the others must not notice, and no socket stay."""

import re
import subprocess
import time

import httpx2
import pytest
from conftest import running

# Where the user comes from; the attack comes from 127.0.0.1.
USER_ADDRESS = "127.0.0.2"
# Seconds until slowhttptest gives up by itself, having held a connection to the end: then the attack has won.
TOO_LONG_SECONDS = 40
SETTLE_SECONDS = 5

# The attacker's address may have more than all of them, and be kept by the deadlines alone.
OPEN = """
connections: {per_address: 2000, head_timeout: 4s}
concurrency: {address: 1000}
limits:
  api: {windows: [100000/min]}
  session: {windows: [100000/min]}
  tenant: {windows: [100000/min]}
"""


@pytest.fixture
def gate_of(tmp_path, direct):
    """Starts a gate in front of the demo app, with these settings beside the defaults."""
    started = []

    def start(settings):
        file = tmp_path / "tidegate.yaml"
        file.write_text(f"upstream: {direct}\n{settings}")
        started.append(running(tmp_path, "run", "-c", file))
        return next(started[-1])

    yield start
    for gate in started:
        next(gate, None)


def metric(gate, name):
    """A metric's value, all labels together."""
    lines = httpx2.get(f"{gate.admin}/metrics", timeout=5).text.splitlines()
    values = [float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}[ {{]", line)]
    assert values, f"no metric {name}"
    return sum(values)


def user(gate):
    """A client with a new connection for each request, since those are what the attack is after."""
    transport = httpx2.HTTPTransport(local_address=USER_ADDRESS, limits=httpx2.Limits(max_keepalive_connections=0))
    return httpx2.Client(transport=transport, base_url=gate.url)


def attack(gate, *options):
    """Lets slowhttptest drip until no connection is left to it, and asks for a page all the while, as a user would.

    Answers with the greatest number of connections and of requests that were open at once.
    """
    command = ["slowhttptest", *options, "-i", "1", "-l", str(TOO_LONG_SECONDS), "-u", f"{gate.url}/api/chat"]
    report = gate.folder / "slowhttptest"
    connections, requests = 0, 0
    with (report.open("wb") as out, user(gate) as browser,
          subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as attacker):
        try:
            while attacker.poll() is None:
                began = time.monotonic()
                assert browser.get("/").status_code == 200
                took = time.monotonic() - began
                assert took < 1, f"a user waited {took:.1f} s"
                connections = max(connections, metric(gate, "tidegate_connections"))
                requests = max(requests, metric(gate, "tidegate_in_flight"))
                time.sleep(0.2)
        finally:
            attacker.kill()
    said = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", report.read_text(errors="replace"))
    # Its word for: the server has closed each of them.
    assert "No open connections left" in said, said[-1000:]
    return connections, requests


def must_come_to_rest(gate):
    """What the attack has held must be given back."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while held := {name: value for name in ("tidegate_connections", "tidegate_in_flight") if (value := metric(gate, name))}:
        assert time.monotonic() < deadline, held
        time.sleep(0.05)


def test_dripping_heads_are_ended(gate_of):
    """A thousand half heads would keep a thread-per-connection server from everyone, for as long as they like."""
    gate = gate_of(OPEN)
    connections, _ = attack(gate, "-H", "-c", "1000", "-r", "500")
    assert connections > 900
    must_come_to_rest(gate)


def test_dripping_heads_stay_within_the_defaults(gate_of):
    """With nothing configured, one address has no more than its share, and not for long."""
    gate = gate_of("")
    connections, _ = attack(gate, "-H", "-c", "1000", "-r", "500")
    assert 200 < connections < 300
    assert metric(gate, "tidegate_connections_refused_total") > 700
    must_come_to_rest(gate)


@pytest.mark.parametrize(
    "kind, deadline",
    [("application/x-www-form-urlencoded", "request_body"), ("application/octet-stream", "body_idle")],
    ids=["inspected", "streamed"],
)
def test_dripping_bodies_are_ended(gate_of, kind, deadline):
    """Each would hold a worker of the app, or a place among the requests, for hours."""
    gate = gate_of(f"{OPEN}timeouts: {{{deadline}: 4s}}\n")
    _, requests = attack(gate, "-B", "-c", "300", "-r", "300", "-s", "8192", "-f", kind)
    assert requests > 250
    must_come_to_rest(gate)
