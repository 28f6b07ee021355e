"""What `tidegate demo` prints and shows must be true."""

import json
import subprocess

import httpx2


def run(command):
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def test_each_printed_command_does_what_it_says(demo):
    demo.wait_for_output("^Ctrl-C ends it")
    commands = [line.strip() for line in demo.output.splitlines() if line.startswith(("    curl ", "    for "))]
    assert len(commands) == 7, demo.output
    chat, stream, foreign, twice, six, limits, metrics = map(run, commands)
    assert "Tidegate demo" in json.loads(chat)["reply"]
    assert stream.endswith("data: [DONE]\n\n")
    assert json.loads(foreign)["code"] == "origin_denied"
    assert json.loads(twice)["code"] == "invalid_json"
    assert six.split() == ["200"] * 3 + ["429"] * 3, "two calls were made before"
    assert any(limit["name"] == "ai" and limit["remaining"] == 0 for limit in json.loads(limits)["limits"])
    assert "tidegate_" in metrics


def test_the_page_shows_the_gates_work(demo):
    page = httpx2.get(demo.url)
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    for name, value in {"x-content-type-options": "nosniff", "x-frame-options": "DENY"}.items():
        assert page.headers[name] == value
    assert "content-security-policy" in page.headers
    assert "x-powered-by" not in page.headers and page.headers.get("server") != "demo-chat"
    for path, kind in {"/app.js": "text/javascript", "/app.css": "text/css", "/icon.svg": "image/svg+xml"}.items():
        part = httpx2.get(demo.url + path)
        assert part.status_code == 200 and part.headers["content-type"].startswith(kind)


def test_the_page_may_post_to_its_own_gate(demo):
    """What a browser sends from the page: its own origin and the fetch metadata."""
    headers = {"origin": demo.url, "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    answer = httpx2.post(f"{demo.url}/api/chat", json={"message": "hello"}, headers=headers)
    assert answer.status_code == 200 and "reply" in answer.json()


def test_the_app_itself_protects_nothing(direct):
    """What the page says of the bare app must be true, or it would claim what it did not do."""
    page = httpx2.get(direct)
    assert page.headers["server"] == "demo-chat" and page.headers["x-powered-by"] == "Demo"
    assert not {"content-security-policy", "x-frame-options", "x-content-type-options"} & set(page.headers)
    foreign = {"origin": "https://evil.example"}
    for _ in range(7):
        assert httpx2.post(f"{direct}/api/chat", json={"message": "hi"}, headers=foreign).status_code == 200
