"""What would make the comparison lie: run with `python3 -m unittest discover -s benches/side_by_side`."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import load
import proxies
import report
import run
import sample
from scenarios import SCENARIOS

GOOD = {"requests": 10, "microseconds": 2_000_000, "bytes": 5000, "p50": 100, "p99": 900,
        "errors": {"connect": 0, "read": 0, "write": 0, "timeout": 0, "status": 0}}


def taken(proxy: str, number: int, microseconds: float, scenario: str = "chat") -> report.Sample:
    return report.Sample(scenario, proxy, number, 1000, 500.0, 1.0, 2.0, microseconds, 4096, 0.9, 0.0, 0.0)


class Refusals(unittest.TestCase):
    """A proxy that refuses is fast; its figures must not reach the table."""

    def test_a_clean_run_is_read(self) -> None:
        self.assertEqual(load.read_wrk("noise\n" + json.dumps(GOOD) + "\n", 300), load.Load(10, 2.0, 100, 900))

    def test_one_error_status_ends_the_run(self) -> None:
        bad = GOOD | {"errors": GOOD["errors"] | {"status": 1}}
        with self.assertRaisesRegex(proxies.Abort, "status"):
            load.read_wrk(json.dumps(bad), 300)

    def test_answers_cut_short_end_the_run(self) -> None:
        with self.assertRaisesRegex(proxies.Abort, "cut"):
            load.read_wrk(json.dumps(GOOD | {"bytes": 2999}), 300)

    def test_a_run_without_answers_ends_the_run(self) -> None:
        with self.assertRaises(proxies.Abort):
            load.read_wrk(json.dumps(GOOD | {"requests": 0, "bytes": 0}), 300)

    def test_a_refused_or_missing_stream_ends_the_run(self) -> None:
        log = "1\t200\t1000\n2\t200\t3000\n"
        self.assertEqual(load.read_h2load(log, 2, 1.0).p99, 3000)
        for lines, sent in ((log.replace("200", "429", 1), 2), (log, 3), (log.replace("200", "-1", 1), 2)):
            with self.assertRaises(proxies.Abort):
                load.read_h2load(lines, sent, 1.0)


class Figures(unittest.TestCase):
    """What the table and the verdict say."""

    def test_the_ratio_pairs_rounds(self) -> None:
        # The second round ran on a machine half as fast: the ratio must not see it.
        samples = [taken("tidegate", 0, 11), taken("tidegate", 1, 22),
                   taken("bare pingora", 0, 10), taken("bare pingora", 1, 20)]
        self.assertEqual(report.ratio(samples, "chat"), report.Spread(1.1, 1.1, 1.1))

    def test_the_limit_is_judged_on_the_median(self) -> None:
        for microseconds, kept in ((11.5, True), (11.6, False)):
            ours = [taken("tidegate", number, microseconds) for number in range(3)]
            samples = ours + [taken("bare pingora", number, 10) for number in range(3)]
            self.assertEqual([judged for judged, _ in report.verdicts(samples)], [kept])
        self.assertEqual(report.verdicts([taken("tidegate", 0, 1, "get")]), [])

    def test_modsecurity_is_judged_against_us(self) -> None:
        for microseconds, met in ((3000, True), (2999, False)):
            samples = [taken("tidegate", 0, 30), taken("modsecurity", 0, microseconds)]
            self.assertEqual([judged for judged, _ in report.verdicts(samples)], [met])

    def test_a_busy_machine_is_said(self) -> None:
        quiet = taken("tidegate", 0, 10)
        self.assertIsNone(report.noise([quiet]))
        loud = report.Sample(**(quiet.__dict__ | {"foreign": 0.4}))
        self.assertIn("40%", report.noise([quiet, loud]))

    def test_a_row_for_each_proxy(self) -> None:
        samples = [taken("tidegate", 0, 11), taken("bare pingora", 0, 10)]
        rows = report.table(samples, "chat", "chat").splitlines()
        self.assertEqual([row.split()[0] for row in rows], ["chat", "tidegate", "bare"])
        self.assertIn("1.100", rows[1])


class Requests(unittest.TestCase):
    """What is sent is what the scenario's title says."""

    def test_bodies_have_their_size_and_are_json(self) -> None:
        sizes = {"get": None, "chat": 1200, "post64k": 65536, "sse": 1200}
        for scenario in SCENARIOS:
            self.assertEqual(scenario.body and len(scenario.body), sizes[scenario.name])
            if scenario.body:
                messages = json.loads(scenario.body)["messages"]
                # Beyond 4,000 characters the shipped text limit would refuse.
                self.assertLess(max(len(message["content"]) for message in messages), 4000)

    def test_no_host_is_a_bare_address(self) -> None:
        # The core rules would log each request, and their logging would be measured.
        for scenario in SCENARIOS:
            self.assertEqual(scenario.header_fields("127.0.0.1:81")["Host"], "localhost:81")

    def test_load_and_check_send_the_same_fields(self) -> None:
        for scenario in SCENARIOS:
            head = scenario.request("127.0.0.1:1").split(b"\r\n\r\n", 1)[0].decode()
            for name, value in scenario.header_fields("127.0.0.1:1").items():
                self.assertIn(f"\r\n{name}: {value}", head)


class Rules(unittest.TestCase):
    """A ModSecurity that is missing, or lets everything pass, makes a comparison with nothing."""

    def test_missing_rules_end_the_run(self) -> None:
        for part in ("MODSECURITY_MODULE", "CORE_RULES"):
            with (tempfile.TemporaryDirectory() as name, mock.patch.object(proxies, part, Path(name) / "absent"),
                  self.assertRaisesRegex(proxies.Abort, "absent is missing: apt-get install")):
                proxies.modsecurity("127.0.0.1:1", "127.0.0.1:2", Path(name))

    def test_rules_that_pass_a_script_end_the_run(self) -> None:
        chat = next(scenario for scenario in SCENARIOS if scenario.modsecurity)
        self.assertIn(b"<script>", chat.attack().body)
        target = run.Target("modsecurity", "127.0.0.1:1", None)
        for status in (200, 500, 403):
            with mock.patch.object(run.client, "fetch", return_value=(status, b"")):
                if status == 403:
                    run.must_refuse(chat, target)
                else:
                    with self.assertRaisesRegex(proxies.Abort, "not on"):
                        run.must_refuse(chat, target)

    def test_only_the_chat_is_sent_through_the_rules(self) -> None:
        self.assertEqual([scenario.name for scenario in SCENARIOS if scenario.modsecurity], ["chat"])


class Readings(unittest.TestCase):
    """Processor time and memory are those of the proxy and its children."""

    def test_a_childs_work_counts(self) -> None:
        work = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
        parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {work!r}])"
        with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            self.assertEqual(len(sample.family(process.pid)), 2)
            self.assertGreaterEqual(sample.processor_seconds(process.pid), 0.18)
            sample.forget_peak(process.pid)
            self.assertGreater(sample.peak_kib(process.pid), 1000)
            process.communicate(b"\n")

    def test_a_server_that_dies_is_named_with_its_words(self) -> None:
        command = proxies.Command("dying", [sys.executable, "-c", "raise SystemExit('no such key: thread')"])
        with tempfile.TemporaryDirectory() as name, self.assertRaisesRegex(proxies.Abort, "dying ended with 1.*\n.*thread"):
            with proxies.running(command, proxies.free_address(), None, Path(name)):
                pass


if __name__ == "__main__":
    unittest.main()
