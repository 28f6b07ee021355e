"""The official Anthropic client must see no difference between the app and the app behind the gate."""

import asyncio

import anthropic
import pytest

CALL = {
    "model": "demo-words",
    "max_tokens": 100,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "I am curious about tides"}]}],
}
ANSWER = "How long have you been curious about tides?"


@pytest.fixture
def client(key):
    return lambda url: anthropic.Anthropic(base_url=url, api_key=key, max_retries=0, timeout=20)


def plain(result):
    return result.model_dump(mode="json")


def test_message(client, same):
    result = same(lambda url: plain(client(url).messages.create(**CALL)))
    assert result["content"][0]["text"] == ANSWER
    assert (result["usage"]["input_tokens"], result["usage"]["output_tokens"]) == (7, 8)


def test_message_streamed(client, same):
    def call(url):
        with client(url).messages.stream(**CALL) as stream:
            text = "".join(stream.text_stream)
            return text, plain(stream.get_final_message())

    text, final = same(call)
    assert text == ANSWER and final["stop_reason"] == "end_turn"
    assert (final["usage"]["input_tokens"], final["usage"]["output_tokens"]) == (7, 8)


def test_raw_events(client, same):
    """Each event must pass, in order; a `ping` too."""
    names = same(lambda url: [plain(event)["type"] for event in client(url).messages.create(**CALL, stream=True)])
    assert names[0] == "message_start" and names[-1] == "message_stop"
    assert names.count("content_block_delta") == 8


def test_async_stream(key, same):
    async def call(url):
        async with anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0, timeout=20) as client:
            async with client.messages.stream(**CALL) as stream:
                return [text async for text in stream.text_stream]

    assert "".join(same(lambda url: asyncio.run(call(url)))) == ANSWER


def test_the_apps_own_refusals_pass_unchanged(client, same):
    def call(url):
        with pytest.raises(anthropic.BadRequestError) as caught:
            client(url).messages.create(**CALL | {"max_tokens": -1})
        return caught.value.status_code, caught.value.body

    assert same(call)[1]["error"]["message"] == "'max_tokens' has the wrong type."
