"""Sends the load: wrk where the proxy is to be busy, h2load where a set number of paced streams is to end."""

import json
import math
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from proxies import HERE, Abort, pinned, program
from scenarios import Scenario


@dataclass(frozen=True)
class Load:
    """What the load generator saw; times in microseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float


def send(scenario: Scenario, authority: str, seconds: float, core: str | None, answer: int) -> Load:
    """Loads `authority` for about `seconds`. `answer` is the length of the right answer's body in bytes.

    Raises `Abort` if a single request failed: a proxy that refuses is fast, and its figures worthless.
    """
    with tempfile.TemporaryDirectory(prefix="tidegate-load.") as name:
        directory = Path(name)
        body = directory / "body"
        body.write_bytes(scenario.body or b"")
        if scenario.paced is None:
            return wrk(scenario, authority, seconds, core, answer, body)
        return h2load(scenario, authority, seconds, core, body, directory / "log")


def run(command: list[str], core: str | None, patience: float) -> str:
    """The program's output; it has to succeed in time."""
    try:
        ended = subprocess.run(pinned(command, core), capture_output=True, text=True, timeout=patience)
    except subprocess.TimeoutExpired:
        raise Abort(f"{command[0]} did not end within {patience:.0f} s: requests hang") from None
    if ended.returncode != 0:
        raise Abort(f"{command[0]} ended with {ended.returncode}:\n{ended.stdout[-1000:]}{ended.stderr[-1000:]}")
    return ended.stdout


def wrk(scenario: Scenario, authority: str, seconds: float, core: str | None, answer: int, body: Path) -> Load:
    fields = [f"{name}: {value}" for name, value in scenario.header_fields(authority).items()]
    # wrk takes whole seconds only.
    duration = max(1, round(seconds))
    command = [program("wrk", "wrk"), "--threads", "1", "--connections", str(scenario.connections),
               "--duration", f"{duration}s", "--script", str(HERE / "load.lua"),
               f"http://{authority}{scenario.path}", "--", scenario.method, str(body) if scenario.body else "-", *fields]
    return read_wrk(run(command, core, duration + 30), answer)


def read_wrk(output: str, answer: int) -> Load:
    """What load.lua printed, if all went well."""
    seen = json.loads(output.strip().splitlines()[-1])
    failed = {kind: count for kind, count in seen["errors"].items() if count}
    if failed or not seen["requests"]:
        raise Abort(f"under load: {failed or 'no answer'}, beside {seen['requests']} answers")
    if seen["bytes"] < seen["requests"] * answer:
        raise Abort(f"answers were cut short: {seen['bytes']} bytes for {seen['requests']} × {answer}")
    return Load(seen["requests"], seen["microseconds"] / 1e6, seen["p50"], seen["p99"])


def h2load(scenario: Scenario, authority: str, seconds: float, core: str | None, body: Path, log: Path) -> Load:
    # Whole waves, each connection as many streams as the others, and all of them to their end: with wrk, the streams
    # that are cut when the time is up would be paid for and not counted.
    waves = max(1, math.ceil(seconds / scenario.paced))
    # It would send a Host beside its own; this it takes for its own.
    named = {":authority" if name == "Host" else name: value for name, value in scenario.header_fields(authority).items()}
    fields = [part for name, value in named.items() for part in ("-H", f"{name}: {value}")]
    command = [program("h2load", "nghttp2-client"), "--h1", "--threads=1", f"--clients={scenario.connections}",
               f"--requests={waves * scenario.connections}", f"--data={body}", f"--log-file={log}", *fields,
               f"http://{authority}{scenario.path}"]
    started = time.monotonic()
    run(command, core, seconds * 20 + 30)
    return read_h2load(log.read_text(), waves * scenario.connections, time.monotonic() - started)


def read_h2load(log: str, sent: int, seconds: float) -> Load:
    """h2load's log: start, status and microseconds of each request."""
    lines = [line.split("\t") for line in log.splitlines()]
    bad = [status for _, status, _ in lines if status != "200"]
    if bad or len(lines) != sent:
        raise Abort(f"under load: {len(lines)} of {sent} answered, with a status other than 200: {bad[:5]}")
    times = sorted(int(microseconds) for _, _, microseconds in lines)
    return Load(sent, seconds, times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)])


def spent_by_generators() -> float:
    """Processor seconds of the load generators that have ended."""
    times = os.times()
    return times.children_user + times.children_system
