"""Readings from /proc: processor time and peak memory of a process and its children, and who else was busy."""

import os
from dataclasses import dataclass
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the name before them, in parentheses, may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def family(pid: int) -> list[int]:
    """A process and its children (nginx works in one)."""
    members = [pid]
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if int(stat(int(entry.name))[1]) == pid:
                    members.append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                pass  # It ended while we looked.
    return members


def processor_seconds(pid: int) -> float:
    """User and system time so far, all threads. The kernel rounds to ticks of 10 ms."""
    ticks = 0
    for member in family(pid):
        utime, stime = stat(member)[11:13]
        ticks += int(utime) + int(stime)
    return ticks / TICK


def forget_peak(pid: int) -> None:
    """Starts the peak memory anew from what is resident now."""
    for member in family(pid):
        Path(f"/proc/{member}/clear_refs").write_text("5")


def peak_kib(pid: int) -> int:
    """Peak resident memory since `forget_peak`, KiB."""
    total = 0
    for member in family(pid):
        status = Path(f"/proc/{member}/status").read_text().splitlines()
        total += sum(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return total


@dataclass(frozen=True)
class Machine:
    """Processor seconds of the whole machine since it started."""

    busy: float
    stolen: float

    @staticmethod
    def now() -> "Machine":
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _idle, _wait, irq, softirq, stolen = (int(field) / TICK for field in fields[1:9])
        return Machine(user + nice + system + irq + softirq, stolen)
