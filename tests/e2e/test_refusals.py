"""Each refusal must reach an SDK's user as the exception class that their code already handles."""

import anthropic
import httpx2
import openai
import pytest

FOREIGN = {"Origin": "https://evil.example"}
# Over every default cap on a text, and far under the cap on a body.
LONG_TEXT = "x" * 2_000_000
# Over the default cap on a body of a model API, 20 MiB.
LARGE_FIELD = "x" * (21 * 1024 * 1024)


class SecondModel(httpx2.HTTPTransport):
    """Names `model` a second time in each body, which no SDK would and two parsers would read differently."""

    def handle_request(self, request):
        body = request.read().removesuffix(b"}") + b',"model":"another"}'
        headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"content-length"]
        return super().handle_request(httpx2.Request(request.method, request.url, headers=headers, content=body))


class OpenAi:
    sdk = openai

    def __init__(self, url, key, **options):
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=30, **options)

    def call(self, text="hello", **options):
        messages = [{"role": "user", "content": text}]
        return self.client.chat.completions.create(model="demo-words", messages=messages, **options)

    @staticmethod
    def error_in(body):
        """The error object, which the SDK has taken out of its wrapping already."""
        assert {"message", "type", "param", "code"} <= body.keys()
        return body


class Anthropic:
    sdk = anthropic

    def __init__(self, url, key, **options):
        self.client = anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=30, **options)

    def call(self, text="hello", **options):
        messages = [{"role": "user", "content": text}]
        return self.client.messages.create(model="demo-words", max_tokens=100, messages=messages, **options)

    @staticmethod
    def error_in(body):
        assert body["type"] == "error" and body["request_id"]
        return body["error"]


@pytest.fixture(params=[OpenAi, Anthropic])
def api(request):
    return request.param


def refused(api, kind, status, reason, call):
    """Calls, and checks the exception. Answers with it and with the error object in its body."""
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    assert error.status_code == status
    assert error.response.headers["x-tidegate-reason"] == reason
    body = api.error_in(error.body)
    assert body["reason"] == reason and body["message"]
    return error, body


@pytest.mark.parametrize("options", [{}, {"stream": True}])
def test_the_sixth_call_in_a_minute(api, strict, key, options):
    caller = api(strict, key)
    for _ in range(5):
        result = caller.call(**options)
        if options:
            assert list(result)
    error, body = refused(api, api.sdk.RateLimitError, 429, "rate_limited", lambda: caller.call(**options))
    headers = error.response.headers
    wait = int(headers["retry-after"])
    assert 0 < wait <= 60
    assert (wait - 1) * 1000 < int(headers["retry-after-ms"]) <= wait * 1000
    assert headers["x-ratelimit-limit"] == "5" and headers["x-ratelimit-remaining"] == "0"
    assert ";q=5;w=60" in headers["ratelimit-policy"] and f";r=0;t={wait}" in headers["ratelimit"]
    assert "limits.ai" in body["message"], "the refusal must say what sets the limit"
    if api is OpenAi:
        assert error.code == "rate_limit_exceeded"
    else:
        assert body["type"] == "rate_limit_error"


def test_a_new_key_buys_no_new_calls(api, strict, key):
    """Nobody has verified the key, so the address's limit stands."""
    for n in range(5):
        api(strict, f"{key}-{n}").call()
    refused(api, api.sdk.RateLimitError, 429, "rate_limited", api(strict, f"{key}-new").call)


def test_a_page_of_another_site(api, strict, key):
    caller = api(strict, key, default_headers=FOREIGN)
    _, body = refused(api, api.sdk.PermissionDeniedError, 403, "origin_denied", caller.call)
    assert body["type"] == "permission_error"


def test_a_key_named_twice(api, strict, key):
    caller = api(strict, key, http_client=httpx2.Client(transport=SecondModel()))
    _, body = refused(api, api.sdk.BadRequestError, 400, "invalid_json", caller.call)
    assert body["type"] == "invalid_request_error"


def test_a_body_too_deep(api, strict, key):
    deep = {}
    for _ in range(200):
        deep = {"a": deep}
    caller = api(strict, key)
    refused(api, api.sdk.BadRequestError, 400, "invalid_json", lambda: caller.call(extra_body={"metadata": deep}))


def test_a_text_too_long(api, strict, key):
    caller = api(strict, key)
    refused(api, api.sdk.UnprocessableEntityError, 422, "text_too_long", lambda: caller.call(LONG_TEXT))


def test_a_body_too_large(api, strict, key):
    """The answer must reach a client that is still sending: a reset would read as a broken network."""
    caller = api(strict, key)
    large = {"extra_body": {"metadata": LARGE_FIELD}}
    kind = api.sdk.APIStatusError if api is OpenAi else anthropic.ContentTooLargeError
    refused(api, kind, 413, "body_too_large", lambda: caller.call(**large))


def test_refused_calls_are_not_counted(api, strict, key):
    """What never reached the app must not use up what the app may be asked."""
    for _ in range(3):
        refused(api, api.sdk.PermissionDeniedError, 403, "origin_denied", api(strict, key, default_headers=FOREIGN).call)
        caller = api(strict, key, http_client=httpx2.Client(transport=SecondModel()))
        refused(api, api.sdk.BadRequestError, 400, "invalid_json", caller.call)
    for _ in range(5):
        api(strict, key).call()


def test_no_such_path(api, gate, key):
    """The app's own 404, which the gate must not take for its own."""
    url = f"{gate}/nowhere"
    with pytest.raises(api.sdk.NotFoundError) as caught:
        api(url, key).call()
    assert "x-tidegate-reason" not in caught.value.response.headers


class TestChat:
    """A home-made chat reads RFC 9457 problems."""

    @staticmethod
    def post(url, body, **headers):
        headers = {"content-type": "application/json", **headers}
        return httpx2.post(f"{url}/api/chat", content=body, headers=headers, timeout=30)

    def problem(self, url, status, code, body, **headers):
        answer = self.post(url, body, **headers)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        problem = answer.json()
        assert (problem["status"], problem["code"]) == (status, code)
        assert problem["request_id"] == answer.headers["x-request-id"]

    def test_text_of_4000_characters_and_one_more(self, strict):
        assert self.post(strict, '{"message":"%s"}' % ("é" * 4000)).status_code == 200
        self.problem(strict, 422, "text_too_long", '{"message":"%s"}' % ("é" * 4001))

    def test_body_over_1_mib(self, strict):
        self.problem(strict, 413, "body_too_large", '{"message":"hello","padding":"%s"}' % ("x" * 1024 * 1024))

    def test_the_others(self, strict):
        self.problem(strict, 400, "invalid_json", '{"message":"hello","message":"bye"}')
        self.problem(strict, 400, "invalid_json", '{"message":')
        self.problem(strict, 403, "origin_denied", '{"message":"hello"}', origin="https://evil.example")
        for _ in range(5):
            assert self.post(strict, '{"message":"hello"}').status_code == 200
        self.problem(strict, 429, "rate_limited", '{"message":"hello"}')
