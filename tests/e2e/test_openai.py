"""The official OpenAI client must see no difference between the app and the app behind the gate."""

import asyncio
import time

import openai
import pytest

SAY = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "I am curious about tides"}]
ANSWER = "How long have you been curious about tides?"


@pytest.fixture
def client(key):
    return lambda url: openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20)


def plain(result):
    return result.model_dump(mode="json")


def test_chat_completion(client, same):
    result = same(lambda url: plain(client(url).chat.completions.create(model="demo-words", messages=SAY)))
    assert result["choices"][0]["message"]["content"] == ANSWER
    assert result["usage"]["total_tokens"] == 7 + 8


def test_chat_completion_streamed(client, same):
    def call(url):
        options = {"include_usage": True}
        completions = client(url).chat.completions
        with completions.create(model="demo-words", messages=SAY, stream=True, stream_options=options) as stream:
            return [plain(chunk) for chunk in stream]

    chunks = same(call)
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks[:-1]) == ANSWER
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 8


def test_chat_completion_streamed_without_usage(client, same):
    """A client that did not ask for usage must not be sent the chunk without choices: many index into it."""

    def call(url):
        with client(url).chat.completions.create(model="demo-words", messages=SAY, stream=True) as stream:
            return [plain(chunk) for chunk in stream]

    assert all(len(chunk["choices"]) == 1 and chunk.get("usage") is None for chunk in same(call))


def test_a_stream_arrives_as_it_is_written(client, gate):
    """A reader must see the first word while the last is still to come."""
    with client(gate).chat.completions.create(model="demo-words", messages=SAY, stream=True) as stream:
        seen = [time.monotonic() for _ in stream]
    assert seen[-1] - seen[0] > 0.15, "ten chunks, 30 ms apart, came in one lump"


def test_async_stream(key, same):
    async def call(url):
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, timeout=20) as client:
            stream = await client.chat.completions.create(model="demo-words", messages=SAY, stream=True)
            return [plain(chunk) async for chunk in stream]

    assert len(same(lambda url: asyncio.run(call(url)))) == 10


def test_response(client, same):
    def call(url):
        response = client(url).responses.create(model="demo-words", input="I am curious about tides")
        return plain(response), response.output_text

    result, text = same(call)
    assert (text, result["usage"]["total_tokens"]) == (ANSWER, 5 + 8)


def test_response_streamed(client, same):
    def call(url):
        with client(url).responses.stream(model="demo-words", input="I am curious about tides") as stream:
            names = [event.type for event in stream]
            return names, plain(stream.get_final_response())

    names, final = same(call)
    assert names[0] == "response.created" and names[-1] == "response.completed"
    assert final["output"][0]["content"][0]["text"] == ANSWER


@pytest.mark.parametrize("encoding", ["float", openai.omit])
def test_embeddings(client, same, encoding):
    def call(url):
        words = ["high tide", "low tide"]
        return plain(client(url).embeddings.create(model="demo-words", input=words, encoding_format=encoding))

    result = same(call)
    assert [len(item["embedding"]) for item in result["data"]] == [16, 16]
    assert result["usage"]["prompt_tokens"] == 4


def test_models(client, same):
    assert [model["id"] for model in same(lambda url: plain(client(url).models.list())["data"])] == ["demo-words"]
    assert same(lambda url: plain(client(url).models.retrieve("demo-words")))["object"] == "model"


def error_of(kind, call):
    with pytest.raises(kind) as caught:
        call()
    error = caught.value
    return type(error).__name__, error.status_code, error.body


def test_the_apps_own_refusals_pass_unchanged(client, same):
    missing = same(lambda url: error_of(openai.NotFoundError, lambda: client(url).models.retrieve("missing")))
    assert missing[2]["code"] == "model_not_found"
    bad = same(
        lambda url: error_of(
            openai.BadRequestError,
            lambda: client(url).embeddings.create(model="demo-words", input="tide", dimensions=0),
        )
    )
    assert bad[2]["param"] == "dimensions"
