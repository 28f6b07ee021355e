"""The official clients live through a silence in a stream, and raise what they raise when it does not end."""

import http.server
import json
import threading

import anthropic
import openai
import pytest
from conftest import running

SAY = [{"role": "user", "content": "hello"}]
WORDS = ["high", " and ", "low"]
# Heartbeats fall into the first; the gate gives up in the second.
PAUSE_SECONDS, FOR_EVER_SECONDS = 0.6, 30

OPENAI = [
    {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m",
     "choices": [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}]}
    for word in WORDS
]
ANTHROPIC = [
    {"type": "message_start", "message": {
        "id": "m1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in WORDS),
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None},
     "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]


class Silent(http.server.BaseHTTPRequestHandler):
    """Streams a model's words; falls silent in between, for a moment under `/pause`, for ever under `/stuck`."""

    protocol_version = "HTTP/1.1"
    ended = threading.Event()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if self.path.endswith("/messages"):
            events = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in ANTHROPIC]
        else:
            events = [f"data: {json.dumps(event)}\n\n" for event in OPENAI] + ["data: [DONE]\n\n"]
        half = len(events) // 2
        self._chunk("".join(events[:half]))
        self.ended.wait(PAUSE_SECONDS if self.path.startswith("/pause/") else FOR_EVER_SECONDS)
        self._chunk("".join(events[half:]))
        self._chunk("")

    def _chunk(self, text):
        try:
            self.wfile.write(f"{len(text.encode()):x}\r\n{text}\r\n".encode())
        except OSError:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def silent():
    Silent.ended.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=server.serve_forever).start()
    yield "http://127.0.0.1:%d" % server.server_port
    Silent.ended.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def brisk(silent, tmp_path_factory):
    """A gate whose patience with streams is short."""
    folder = tmp_path_factory.mktemp("brisk")
    settings = folder / "tidegate.yaml"
    settings.write_text(
        f"upstream: {silent}\nstreams: {{heartbeat: 100ms}}\ntimeouts: {{stream_idle: 2s}}\n"
        "limits: {ai: {windows: [1000/min]}}\n"
    )
    for tidegate in running(folder, "run", "-c", settings):
        yield tidegate.url


def openai_words(base):
    client = openai.OpenAI(base_url=f"{base}/v1", api_key="sk-e2e-streams", max_retries=0, timeout=20)
    with client.chat.completions.create(model="m", messages=SAY, stream=True) as stream:
        for chunk in stream:
            yield chunk.choices[0].delta.content


def anthropic_words(base):
    client = anthropic.Anthropic(base_url=base, api_key="sk-e2e-streams", max_retries=0, timeout=20)
    with client.messages.stream(model="m", max_tokens=9, messages=SAY) as stream:
        yield from stream.text_stream


CLIENTS = pytest.mark.parametrize(
    "words, error",
    [(openai_words, openai.APIError), (anthropic_words, anthropic.APIError)],
    ids=["openai", "anthropic"],
)


@CLIENTS
def test_a_silence_is_lived_through(brisk, words, error):
    """Heartbeats are no events: no word more, none less."""
    assert list(words(f"{brisk}/pause")) == WORDS


@CLIENTS
def test_a_stream_that_fell_silent_is_an_error(brisk, words, error):
    """Half an answer that looks whole is worse than none."""
    heard = []
    with pytest.raises(error) as caught:
        heard.extend(words(f"{brisk}/stuck"))
    assert "timeouts.stream_idle" in str(caught.value)
