#!/usr/bin/env python3
"""Measures Tidegate beside bare Pingora, nginx, for a chat POST nginx with ModSecurity and the core rules, and no proxy
at all: same upstream, same load, alternating rounds.

BENCH_ROUNDS (5) and BENCH_SECONDS (3) set how long. Ends with 1 if --enforce is given and a limit is broken, with 2
if the measurement could not be made.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import client
import load
import proxies
import report
import sample
from proxies import Abort, Cores, Running
from scenarios import SCENARIOS, Scenario

OUT = Path(__file__).resolve().parents[2] / "target" / "bench" / "side_by_side.json"
WARM_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Target:
    """What the load is sent to; `server` is `None` for the upstream itself."""

    name: str
    address: str
    server: Running | None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidegate", required=True, help="the binary")
    parser.add_argument("--bare", required=True, help="the example bare_pingora, of the same profile")
    parser.add_argument("--upstream", required=True, help="the example bench_upstream")
    parser.add_argument("--scenarios", default=",".join(s.name for s in SCENARIOS), help="some of %(default)s")
    parser.add_argument("--enforce", action="store_true", help="fail if a chat POST costs more than it may")
    parser.add_argument("--out", type=Path, default=OUT, help="where the samples go, as JSON")
    return parser.parse_args()


def start(given: argparse.Namespace, stack: ExitStack, directory: Path,
          cores: Cores | None) -> tuple[Running, list[Target]]:
    """The upstream, and every proxy before it."""
    def run(command: proxies.Command, address: str, core: str | None) -> Running:
        return stack.enter_context(proxies.running(command, address, core, directory))

    address = proxies.free_address()
    upstream = run(proxies.Command("upstream", [given.upstream, address]), address, cores and cores.upstream)
    targets = []
    for build in (
        lambda listen: proxies.tidegate(given.tidegate, listen, address, directory),
        lambda listen: proxies.bare_pingora(given.bare, listen, address, directory),
        lambda listen: proxies.nginx(listen, address, directory),
        lambda listen: proxies.modsecurity(listen, address, directory),
    ):
        listen = proxies.free_address()
        server = run(build(listen), listen, cores and cores.proxy)
        targets.append(Target(server.name, listen, server))
    return upstream, [*targets, Target("no proxy", address, None)]


def right_answer(scenario: Scenario, upstream: str) -> bytes:
    """What the upstream itself answers."""
    status, body = client.fetch(upstream, scenario.request(upstream))
    if status != 200:
        raise Abort(f"{scenario.title}: the upstream answers {status}")
    if scenario.name in ("chat", "post64k") and json.loads(body)["received"] != len(scenario.body or b""):
        raise Abort(f"{scenario.title}: the upstream received {body[:60]!r}, not {len(scenario.body or b'')} bytes")
    if scenario.name == "sse" and body.count(b"data: ") != 201:
        raise Abort(f"{scenario.title}: the upstream sent {body.count(b'data: ')} events")
    return body


def verify(scenario: Scenario, target: Target, right: bytes) -> None:
    """A proxy must answer with the upstream's very bytes, twice, the second time on a used connection."""
    with client.Connection(target.address) as connection:
        for _ in range(2):
            status, body = connection.exchange(scenario.request(target.address))
            if (status, body) != (200, right):
                raise Abort(f"{scenario.title}: {target.name} answers {status} with {len(body)} bytes, "
                            f"not 200 with the upstream's {len(right)}: {body[:300]!r}")


def must_refuse(scenario: Scenario, target: Target) -> None:
    """Rules that let a script pass are not on, and cost nothing."""
    status, _ = client.fetch(target.address, scenario.attack().request(target.address))
    if status != 403:
        raise Abort(f"{scenario.title}: {target.name} answers a script with {status}: its rules are not on")


def loaded(scenario: Scenario, target: Target, seconds: float, core: str | None, answer: int) -> load.Load:
    """Sends the load; a failure names the proxy, and says what it printed if it died of it."""
    try:
        return load.send(scenario, target.address, seconds, core, answer)
    except Abort as reason:
        if target.server:
            target.server.must_live()
        raise Abort(f"{scenario.title}: {target.name}: {reason}") from None


def measure(scenario: Scenario, target: Target, number: int, seconds: float, core: str | None, answer: int,
            upstream: Running) -> report.Sample:
    """One proxy under load for one round."""
    pid = target.server.pid if target.server else None
    if pid is not None:
        sample.forget_peak(pid)

    def spent() -> tuple[float, float]:
        """Processor seconds of the proxy; and of everything that belongs to the measurement."""
        proxy = sample.processor_seconds(pid) if pid is not None else 0.0
        return proxy, proxy + sample.processor_seconds(upstream.pid) + load.spent_by_generators()

    machine, (proxy, ours), began = sample.Machine.now(), spent(), time.monotonic()
    seen = loaded(scenario, target, seconds, core, answer)
    took, (proxy_after, ours_after), machine_after = time.monotonic() - began, spent(), sample.Machine.now()

    proxy, ours = proxy_after - proxy, ours_after - ours
    whole = took * (os.cpu_count() or 1)
    return report.Sample(
        scenario=scenario.name,
        proxy=target.name,
        round=number,
        requests=seen.requests,
        requests_per_second=seen.requests / seen.seconds,
        p50_ms=seen.p50 / 1000,
        p99_ms=seen.p99 / 1000,
        processor_us=proxy / seen.requests * 1e6 if pid is not None else None,
        peak_kib=sample.peak_kib(pid) if pid is not None else None,
        busy=proxy / seen.seconds if pid is not None else None,
        foreign=max(0.0, (machine_after.busy - machine.busy - ours) / whole),
        stolen=(machine_after.stolen - machine.stolen) / whole,
    )


def compare(scenario: Scenario, upstream: Running, targets: list[Target], rounds: int, seconds: float,
            core: str | None) -> list[report.Sample]:
    """All rounds of a scenario; each round begins with another proxy, so that none always follows the same one."""
    answer = right_answer(scenario, upstream.address)
    targets = [target for target in targets if target.name != report.RULES or scenario.modsecurity]
    for target in targets:
        verify(scenario, target, answer)
        if target.name == report.RULES:
            must_refuse(scenario, target)
        loaded(scenario, target, WARM_UP_SECONDS, core, len(answer))
    samples = []
    for number in range(rounds):
        turn = number % len(targets)
        for target in targets[turn:] + targets[:turn]:
            samples.append(measure(scenario, target, number, seconds, core, len(answer), upstream))
    # In the order of the targets again, as the table lists them.
    order = [target.name for target in targets]
    return sorted(samples, key=lambda taken: (order.index(taken.proxy), taken.round))


def main() -> int:
    given = arguments()
    rounds, seconds = int(os.environ.get("BENCH_ROUNDS", "5")), float(os.environ.get("BENCH_SECONDS", "3"))
    chosen = given.scenarios.split(",")
    unknown = set(chosen) - {scenario.name for scenario in SCENARIOS}
    if unknown or rounds < 1 or seconds < 1:
        raise Abort(f"no such scenario: {', '.join(unknown)}" if unknown else "at least one round of one second")
    cores = Cores.share()
    print(f"{rounds} rounds of {seconds:g} s; one thread each; median (least–greatest); "
          + (f"proxy on core {cores.proxy}, load on {cores.load}, upstream on {cores.upstream}" if cores
             else "a single core for all: requests/s say little"), flush=True)

    samples: list[report.Sample] = []
    with tempfile.TemporaryDirectory(prefix="tidegate-bench.") as name, ExitStack() as stack:
        upstream, targets = start(given, stack, Path(name), cores)
        for scenario in (scenario for scenario in SCENARIOS if scenario.name in chosen):
            samples += compare(scenario, upstream, targets, rounds, seconds, cores and cores.load)
            print("\n" + report.table(samples, scenario.name, scenario.title), flush=True)

    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps({
        "machine": {"system": platform.platform(), "cores": os.cpu_count(), "processor": processor()},
        "rounds": rounds,
        "seconds": seconds,
        "summary": report.summary(samples),
        "samples": [asdict(taken) for taken in samples],
    }, indent=1) + "\n")
    print(f"\nSamples: {os.path.relpath(given.out)}")
    for warning in filter(None, [report.noise(samples)]):
        print(warning)
    verdicts = report.verdicts(samples)
    for _, sentence in verdicts:
        print(sentence)
    return 1 if given.enforce and not all(kept for kept, _ in verdicts) else 0


def processor() -> str:
    """The processor's name."""
    names = (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name"))
    return next(names, "unknown")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Abort as reason:
        sys.exit(print(f"bench: {reason}", file=sys.stderr) or 2)
