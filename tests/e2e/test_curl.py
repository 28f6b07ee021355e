"""curl, over HTTP/1.1 and over HTTP/2 in plain text."""

import json
import subprocess
import time

import pytest

CHAT = '{"message":"I am curious about tides"}'
STREAM = '{"model":"demo-words","stream":true,"messages":[{"role":"user","content":"I am curious about tides"}]}'
H1, H2C = ("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")


def curl(url, *arguments, body=None):
    """Answers with (status, HTTP version, body)."""
    command = ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code} %{http_version}", *arguments, url]
    if body is not None:
        command += ["-H", "content-type: application/json", "--data-binary", "@-"]
    done = subprocess.run(command, input=body, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    text, _, last = done.stdout.rpartition("\n")
    status, version = last.split()
    return int(status), version, text


@pytest.fixture(params=[H1, H2C], ids=["h1", "h2c"])
def protocol(request):
    return request.param


def test_chat(same, protocol):
    flag, version = protocol
    status, spoken, text = same(lambda url: curl(f"{url}/api/chat", flag, body=CHAT))
    assert (status, spoken) == (200, version)
    assert json.loads(text) == {"reply": "How long have you been curious about tides?"}


def test_stream(same, protocol):
    """The bytes of a stream must be the same with the gate as without."""
    flag, version = protocol
    status, spoken, text = same(lambda url: curl(f"{url}/v1/chat/completions", flag, "-N", body=STREAM))
    assert (status, spoken) == (200, version)
    assert text.endswith("data: [DONE]\n\n") and text.count("data: ") == 11


def test_chunked_body(same, protocol):
    status, _, text = same(
        lambda url: curl(f"{url}/api/chat", protocol[0], "-H", "transfer-encoding: chunked", body=CHAT)
    )
    assert status == 200 and "curious" in text


def test_large_body_after_100_continue(same):
    """A client that asks before it sends a large body must be told to go on, not be left waiting."""
    body = STREAM[:-1] + ',"metadata":"%s"}' % ("x" * 2 * 1024 * 1024)
    arguments = ("--http1.1", "-H", "expect: 100-continue", "--expect100-timeout", "15")
    begun = time.monotonic()
    status, _, text = same(lambda url: curl(f"{url}/v1/chat/completions", *arguments, body=body))
    assert status == 200 and text.endswith("data: [DONE]\n\n")
    assert time.monotonic() - begun < 10, "curl gave up waiting for 100 Continue"


def test_head(same, protocol):
    status, version, text = same(lambda url: curl(f"{url}/health", protocol[0], "--head", "-o", "/dev/null"))
    assert (status, version, text) == (200, protocol[1], "")


def test_refusal(strict, protocol):
    flag, version = protocol
    foreign = ("-H", "origin: https://evil.example")
    status, spoken, text = curl(f"{strict}/api/chat", flag, *foreign, body=CHAT)
    assert (status, spoken, json.loads(text)["code"]) == (403, version, "origin_denied")


def test_limits_are_one_for_both_protocols(strict):
    """Changing the protocol must buy no further calls."""
    turns = [H1, H2C] * 3
    assert [curl(f"{strict}/api/chat", flag, body=CHAT)[0] for flag, _ in turns] == [200] * 5 + [429]


def test_an_offered_upgrade_switches_nothing(gate):
    """`Upgrade: h2c` on HTTP/1.1 must never lead past the guards."""
    status, version, _ = curl(f"{gate}/api/chat", "--http2", body=CHAT)
    assert version == "1.1" and (status == 200 or 400 <= status < 500)
