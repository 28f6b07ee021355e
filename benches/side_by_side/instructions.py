#!/usr/bin/env python3
"""Counts user-space instructions a request with callgrind, where timing is too noisy to judge.

Each proxy runs twice, for fewer and for more requests; the difference, divided by the requests between, has no start-up
in it. The same build gives the same figure within a few parts in a thousand, whatever else the machine does; for the
stream within 3 %, since it depends on how many events one read finds. What the kernel does is not counted. The profiles
stay in target/bench for callgrind_annotate.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import client
import proxies
from proxies import Abort
from report import BASE, OURS
from scenarios import SCENARIOS, Scenario

OUT = Path(__file__).resolve().parents[2] / "target" / "bench"
# Seconds to start or stop: valgrind is some fifty times slower.
PATIENCE = 120


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidegate", required=True, help="the binary")
    parser.add_argument("--bare", required=True, help="the example bare_pingora, of the same profile")
    parser.add_argument("--upstream", required=True, help="the example bench_upstream")
    parser.add_argument("--scenarios", default=",".join(s.name for s in SCENARIOS), help="some of %(default)s")
    return parser.parse_args()


def counted(command: proxies.Command, profile: Path) -> proxies.Command:
    """The command under callgrind."""
    valgrind = [proxies.program("valgrind", "valgrind"), "--tool=callgrind", f"--callgrind-out-file={profile}"]
    return proxies.Command(command.name, valgrind + command.arguments, command.environment, command.stop)


def total(profile: Path) -> int:
    """All instructions of a run."""
    for line in profile.read_text().splitlines():
        if line.startswith(("summary:", "totals:")):
            return int(line.split()[1])
    raise Abort(f"{profile} holds no total: the proxy did not end in order")


def run(command: proxies.Command, listen: str, scenario: Scenario, requests: int, right: bytes, directory: Path) -> int:
    """Instructions of a proxy from start to end, with so many requests, one after another, on one connection."""
    OUT.mkdir(parents=True, exist_ok=True)
    profile = OUT / f"callgrind.{command.name.replace(' ', '_')}.{scenario.name}.{requests}"
    profile.unlink(missing_ok=True)
    with proxies.running(counted(command, profile), listen, None, directory, PATIENCE) as server:
        request = scenario.request(listen)
        with client.Connection(listen) as connection:
            for number in range(requests):
                status, body = connection.exchange(request)
                if (status, body) != (200, right):
                    raise Abort(f"{scenario.title}: {server.name} answers request {number + 1} with {status}: "
                                f"{body[:300]!r}")
        server.must_live()
    if not profile.exists():
        raise Abort(f"{command.name} left no profile; it said:\n{server.said()}")
    return total(profile)


def main() -> int:
    given = arguments()
    chosen = given.scenarios.split(",")
    print("instructions a request, user space, one connection")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="tidegate-bench.") as name:
        directory, upstream = Path(name), proxies.free_address()
        with proxies.running(proxies.Command("upstream", [given.upstream, upstream]), upstream, None, directory):
            for scenario in (scenario for scenario in SCENARIOS if scenario.name in chosen):
                status, right = client.fetch(upstream, scenario.request(upstream))
                if status != 200:
                    raise Abort(f"{scenario.title}: the upstream answers {status}")
                fewer, more = scenario.counted
                of_scenario = found.setdefault(scenario.name, {})
                for build, binary in ((proxies.tidegate, given.tidegate), (proxies.bare_pingora, given.bare)):
                    instructions = []
                    for requests in (fewer, more):
                        listen = proxies.free_address()
                        command = build(binary, listen, upstream, directory)
                        instructions.append(run(command, listen, scenario, requests, right, directory))
                    of_scenario[command.name] = (instructions[1] - instructions[0]) / (more - fewer)
                ours, base = of_scenario[OURS], of_scenario[BASE]
                print(f"{scenario.title:20} {OURS} {ours:>12,.0f}   {BASE} {base:>12,.0f}   ratio {ours / base:.3f}",
                      flush=True)
    (OUT / "instructions.json").write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Abort as reason:
        sys.exit(print(f"instructions: {reason}", file=sys.stderr) or 2)
