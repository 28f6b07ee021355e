"""What is asked of each proxy: four requests, fixed to the byte."""

import json
from dataclasses import dataclass, field, replace

PROSE = (
    "Could you explain how the tide tables are made, and why the second high water is lower than the first? "
    'I read "the moon does it" in a book, but then:\nwhy do some ports have one tide a day? '
)
BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept-Language": "en-GB,en;q=0.7,de;q=0.3",
    "Cookie": "session_id=4f1c2d9ab07e4c3f8a65d1e09b7c2a11; theme=dark",
}
SDK = {
    "User-Agent": "OpenAI/Python 2.1.0",
    "Accept": "application/json",
    "Authorization": "Bearer sk-bench-0123456789abcdef0123456789abcdef",
}


@dataclass(frozen=True)
class Scenario:
    """One request, and the load it is sent with."""

    name: str
    title: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None = None
    connections: int = 32
    # Seconds that one answer takes at the least; set where the upstream paces it.
    paced: float | None = None
    # Whether nginx with ModSecurity is asked too: its rules take milliseconds a request.
    modsecurity: bool = False
    # How many requests callgrind is given: it runs some fifty times slower.
    counted: tuple[int, int] = field(default=(2000, 4000))

    def attack(self) -> "Scenario":
        """The same request with a script in the last message, which whoever reads bodies has to refuse or to change."""
        conversation = json.loads(self.body or b"{}")
        conversation["messages"][-1]["content"] = "<script>alert(document.cookie)</script>"
        return replace(self, body=json.dumps(conversation).encode())

    def header_fields(self, authority: str) -> dict[str, str]:
        """The fields to send to `authority`, `Content-Length` not among them."""
        # By name, as people ask: the core rules log each request that comes to a bare address.
        host = f"localhost:{authority.rsplit(':', 1)[1]}"
        own_page = {"Origin": f"http://{host}"} if "Cookie" in self.headers and self.body else {}
        kind = {"Content-Type": "application/json"} if self.body else {}
        return {"Host": host} | self.headers | own_page | kind

    def request(self, authority: str) -> bytes:
        """The whole request as it stands on the wire."""
        fields = self.header_fields(authority)
        if self.body is not None:
            fields["Content-Length"] = str(len(self.body))
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (self.body or b"")


def chat(size: int, stream: bool) -> bytes:
    """A conversation of exactly `size` bytes: turns of up to 1,500 characters, quotes, line ends, a little non-ASCII."""
    messages = [{"role": "system", "content": "You are the harbour master’s assistant. Answer in short sentences."}]

    def body() -> bytes:
        conversation = {"model": "gpt-4o-mini", "stream": stream, "temperature": 0.7, "messages": messages}
        return json.dumps(conversation, ensure_ascii=False).encode()

    while len(body()) < size - 2000:
        role = "user" if len(messages) % 2 else "assistant"
        messages.append({"role": role, "content": (PROSE * 9)[:1500]})
    messages.append({"role": "user", "content": "Grüße! "})
    # The escapes in the prose make its length on the wire differ from its length as text, so the end is plain.
    messages[-1]["content"] += PROSE * ((size - len(body())) // (len(PROSE) + 3))
    messages[-1]["content"] += "?" * (size - len(body()))
    return body()


SCENARIOS = [
    Scenario("get", "GET, 2 KiB page", "GET", "/page", BROWSER | {"Accept": "text/html,*/*;q=0.8"}),
    Scenario("chat", "POST, 1.2 KB chat", "POST", "/api/chat", BROWSER | {"Accept": "*/*"}, chat(1200, False),
             modsecurity=True),
    Scenario("post64k", "POST, 64 KiB chat", "POST", "/api/chat", BROWSER | {"Accept": "*/*"}, chat(65536, False),
             counted=(300, 600)),
    Scenario("sse", "POST, 200 events", "POST", "/v1/chat/completions", SDK, chat(1200, True),
             connections=64, paced=0.25, counted=(20, 60)),
]
