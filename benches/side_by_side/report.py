"""Turns samples into medians and spreads, a table, and the verdicts."""

from dataclasses import asdict, dataclass
from statistics import median

# What a chat POST may cost, as a multiple of bare Pingora's processor time (design.md "Speed").
CHAT_LIMIT = 1.15
# What nginx with ModSecurity and the core rules has to cost at least, as a multiple of ours.
RULES_FACTOR = 100
OURS, BASE, RULES = "tidegate", "bare pingora", "modsecurity"


@dataclass(frozen=True)
class Sample:
    """One proxy under one scenario in one round. `None` where there was no proxy process to look at."""

    scenario: str
    proxy: str
    round: int
    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    processor_us: float | None
    peak_kib: int | None
    # Share of one core that the proxy was busy: well under 1, requests/s say more about the load than about the proxy.
    busy: float | None
    # Shares of the whole machine taken by others meanwhile.
    foreign: float
    stolen: float


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest over the rounds."""

    median: float
    least: float
    greatest: float

    @staticmethod
    def of(values: list[float]) -> "Spread":
        return Spread(median(values), min(values), max(values))

    def shown(self, digits: int) -> str:
        return f"{self.median:,.{digits}f} ({self.least:,.{digits}f}–{self.greatest:,.{digits}f})"


# Key in a sample, heading, factor, digits.
MEASURES = [
    ("requests_per_second", "requests/s", 1, 0),
    ("processor_us", "processor µs/request", 1, 1),
    ("p50_ms", "p50 ms", 1, 2),
    ("p99_ms", "p99 ms", 1, 2),
    ("peak_kib", "peak MiB", 1 / 1024, 1),
    ("busy", "core %", 100, 0),
]


def values(samples: list[Sample], scenario: str, proxy: str, measure: str) -> list[float]:
    """A measure's values in the order of the rounds; empty if it was not taken."""
    chosen = (getattr(s, measure) for s in samples if s.scenario == scenario and s.proxy == proxy)
    return [value for value in chosen if value is not None]


def ratio(samples: list[Sample], scenario: str, proxy: str = OURS, base: str = BASE) -> Spread | None:
    """Processor time a request against the base's in the same round: what slows a whole round cancels out."""
    pairs = zip(values(samples, scenario, proxy, "processor_us"), values(samples, scenario, base, "processor_us"))
    ratios = [ours / theirs for ours, theirs in pairs if theirs]
    return Spread.of(ratios) if ratios else None


def summary(samples: list[Sample]) -> dict:
    """Spreads by scenario, proxy and measure, and each proxy's ratio to bare Pingora."""
    found: dict = {}
    for scenario in dict.fromkeys(sample.scenario for sample in samples):
        of_scenario = found.setdefault(scenario, {})
        for proxy in dict.fromkeys(sample.proxy for sample in samples):
            spreads = {measure: values(samples, scenario, proxy, measure) for measure, *_ in MEASURES}
            of_proxy = {measure: asdict(Spread.of(taken)) for measure, taken in spreads.items() if taken}
            against = ratio(samples, scenario, proxy)
            if against is not None and proxy != BASE:
                of_proxy["ratio_to_bare_pingora"] = asdict(against)
            of_scenario[proxy] = of_proxy
    return found


def table(samples: list[Sample], scenario: str, title: str) -> str:
    """One scenario: a line for each proxy, and what they cost beside bare Pingora."""
    proxies = list(dict.fromkeys(s.proxy for s in samples if s.scenario == scenario))
    rows = [[title, *(heading for _, heading, _, _ in MEASURES), "× bare pingora"]]
    for proxy in proxies:
        cells = [proxy]
        for measure, _, factor, digits in MEASURES:
            taken = [value * factor for value in values(samples, scenario, proxy, measure)]
            cells.append(Spread.of(taken).shown(digits) if taken else "–")
        against = ratio(samples, scenario, proxy) if proxy != BASE else None
        rows.append([*cells, against.shown(3) if against else "–"])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def noise(samples: list[Sample]) -> str | None:
    """A warning if the machine was not ours alone."""
    foreign, stolen = (max(getattr(s, share) for s in samples) for share in ("foreign", "stolen"))
    if foreign < 0.05 and stolen < 0.02:
        return None
    return (f"The machine was not ours alone: in the worst round other processes had {foreign:.0%} of it and the "
            f"hypervisor took {stolen:.0%}. Trust the spread, or count instructions instead (instructions.py).")


def verdicts(samples: list[Sample]) -> list[tuple[bool, str]]:
    """Whether a chat POST keeps to each of its limits, and a sentence that says so; without those not measured."""
    found = []
    against = ratio(samples, "chat")
    if against is not None:
        kept = against.median <= CHAT_LIMIT
        found.append((kept, f"A 1.2 KB chat POST costs {against.shown(3)} × bare Pingora's processor time; "
                            f"the limit of {CHAT_LIMIT} is {'kept' if kept else 'broken'}."))
    rules = ratio(samples, "chat", RULES, OURS)
    if rules is not None:
        kept = rules.median >= RULES_FACTOR
        found.append((kept, f"nginx with ModSecurity and the core rules takes {rules.shown(0)} × our processor time for "
                            f"it; the aim of {RULES_FACTOR} is {'met' if kept else 'missed'}."))
    return found
