"""Files, as curl and an HTTP library send them, to an app that parses nothing itself."""

import hashlib
import http.server
import json
import subprocess
import threading

import httpx2
import pytest

from conftest import running

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 2000


class Receiver(http.server.BaseHTTPRequestHandler):
    """Answers with what it received."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        if "chunked" in self.headers.get("transfer-encoding", ""):
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received += 1
        parts = body.count(b"Content-Disposition:")
        digest = hashlib.sha256(body).hexdigest()
        answer = json.dumps({"length": len(body), "parts": parts, "png": PNG in body, "digest": digest}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        server.received = 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def uploads(tmp_path, receiver):
    """A gate in front of the receiver."""
    settings = tmp_path / "tidegate.yaml"
    settings.write_text("upstream: http://127.0.0.1:%d\n" % receiver.server_address[1])
    for tidegate in running(tmp_path, "run", "-c", settings):
        yield tidegate.url


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "cat photo.png"
    path.write_bytes(PNG)
    return path


def curl(url, *arguments):
    command = ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}", *arguments, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    text, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(text)


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("framing", [[], ["-H", "transfer-encoding: chunked"]], ids=["sized", "chunked"])
def test_curl_sends_a_form(uploads, picture, protocol, framing):
    """`curl -F`, with a caption and a picture."""
    if framing and protocol != "--http1.1":
        framing = []  # HTTP/2 has no such field.
    form = ["-F", "caption=look at this; it is a cat", "-F", f"file=@{picture}"]
    status, got = curl(f"{uploads}/upload", protocol, *framing, *form)
    assert (status, got["parts"], got["png"]) == (200, 2, True)


@pytest.mark.parametrize("protocol", ["--http1.1", "--http2-prior-knowledge"])
def test_curl_sends_a_file(uploads, picture, protocol):
    """`curl -T`: the file is the body."""
    status, got = curl(f"{uploads}/files/cat.png", protocol, "-T", str(picture))
    assert (status, got["digest"]) == (200, hashlib.sha256(PNG).hexdigest())


def test_a_library_sends_files(uploads):
    """Several files, one of them with a name that is not ASCII."""
    files = [("file", ("k\u00e4tzchen.png", PNG, "image/png")), ("file", ("notes.md", b"# Notes", "text/markdown"))]
    answer = httpx2.post(f"{uploads}/upload", files=files, data={"message": "hello"})
    assert (answer.status_code, answer.json()["parts"], answer.json()["png"]) == (200, 3, True)


@pytest.mark.parametrize(
    ("form", "status", "reason"),
    [
        ("file=@{};filename=../../etc/passwd.png", 400, "upload_name_denied"),
        ("file=@{};filename=shell.php.png", 400, "upload_name_denied"),
        ("file=@{};filename=setup.exe", 415, "upload_type_denied"),
        ("file=@{};filename=cat.txt", 415, "upload_type_denied"),
        ("file=@{};type=text/html", 415, "upload_type_denied"),
    ],
)
def test_what_is_refused_never_arrives(uploads, receiver, picture, form, status, reason):
    """A refusal names its reason, and the app hears of nothing."""
    got, body = curl(f"{uploads}/upload", "-F", form.format(picture))
    assert (got, body["code"], receiver.received) == (status, reason, 0)
