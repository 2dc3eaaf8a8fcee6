"""Penstock in front of two real llama.cpp servers, asked by openai-python, scraped by promtool.

Driven by `cargo xtask test --real`, which also sets PROMTOOL and TINY_MODEL.
"""

import asyncio
import json
import os
import subprocess
import sys
import unittest

import openai

import stage
from stage import COUNTS, GREEDY, HERE, MODEL, QUESTION, get, wait_for

REPLICAS = 2
# Streams that somebody holds at one engine, past Penstock: fewer than its slots.
ASIDE = 6
TOKENS = "llamacpp:tokens_predicted_total"


class Stage(stage.Stage):
    """Two engines and a gateway, for all tests."""

    def begin(self):
        for _ in range(REPLICAS):
            self.start_engine(
                lambda port: [
                    sys.executable, str(HERE / "serve_llama.py"), os.environ["TINY_MODEL"], str(port), MODEL
                ]
            )
        for engine in self.engines:
            wait_for("llama.cpp", lambda engine=engine: json.loads(get(engine, "/health"))["status"] == "ok", 60)
        self.start_gateway()

    def slots_at_work(self):
        slots = [slot for engine in self.engines for slot in json.loads(get(engine, "/slots"))]
        return sum(slot["is_processing"] for slot in slots)

    def foreign_busy(self, engine):
        """What the kernel counts of others at an engine, as Penstock shows it."""
        return self.metric(self.admin, "penstock_endpoint_kernel_foreign_busy", f'"127.0.0.1:{engine}"')

    def endpoints_of(self, request_id):
        """Where the requests whose id begins so went, as the access log says."""
        return [entry["endpoint"] for entry in self.entries(request_id)]


async def streamed(client, **more):
    """The text of a streamed answer and its usage."""
    text, usage = [], None
    stream = await client.chat.completions.create(
        stream=True, stream_options={"include_usage": True}, **{**GREEDY, **more}
    )
    async for chunk in stream:
        text.extend(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    return "".join(text), usage


async def hold(engine, ready):
    """One stream after the other at an engine, past Penstock; `ready` is released with the first byte."""
    endless = {**GREEDY, "max_tokens": 4000, "stream": True, "ignore_eos": True}
    body = json.dumps(endless).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: llama\r\nContent-Length: {len(body)}\r\n\r\n"
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", engine)
        try:
            writer.write(head.encode() + body)
            while await reader.read(65536):
                ready.release()
        finally:
            writer.close()


class RealEngines(stage.Case):
    def client(self, port=None):
        client = self.stage.client(port)
        self.addAsyncCleanup(client.close)
        return client

    async def test_answers_are_those_of_the_engine(self):
        direct = await self.client(self.stage.engines[0]).chat.completions.create(**GREEDY)
        through = await self.client().chat.completions.create(**GREEDY)
        self.assertEqual(through.choices[0].message.content, direct.choices[0].message.content)
        text, usage = await streamed(self.client())
        self.assertEqual(text, direct.choices[0].message.content)
        self.assertEqual(usage.completion_tokens, direct.usage.completion_tokens)

    async def test_64_streams_at_a_time(self):
        expected, _ = await streamed(self.client(self.stage.engines[0]))
        client = self.client()
        answers = await asyncio.gather(*(streamed(client) for _ in range(64)))
        self.assertEqual({text for text, _ in answers}, {expected})

    async def test_300_streams_without_an_error(self):
        # llama.cpp closes after each stream while it advertises keep-alive: naive pools lose 3 % here.
        client, gate = self.client(), asyncio.Semaphore(8)

        async def one(at):
            async with gate:
                if at % 7 == 6:
                    # Plain answers are kept alive: connections of both kinds lie in the pools.
                    await client.chat.completions.create(**{**GREEDY, "max_tokens": 2})
                return await streamed(client, max_tokens=4)

        answers = await asyncio.gather(*(one(at) for at in range(300)), return_exceptions=True)
        errors = [repr(answer) for answer in answers if isinstance(answer, BaseException)]
        self.assertEqual(errors, [])

    async def test_a_client_that_leaves_frees_its_slot(self):
        endless = {**GREEDY, "max_tokens": 4000, "stream": True, "extra_body": {"ignore_eos": True}}
        stream = await self.client().chat.completions.create(**endless)
        await anext(aiter(stream))
        self.assertEqual(self.stage.slots_at_work(), 1)
        await stream.close()
        wait_for("the slot to be free", lambda: self.stage.slots_at_work() == 0, 2)

    async def test_both_replicas_are_used(self):
        before = [self.stage.metric(engine, TOKENS) for engine in self.stage.engines]
        client = self.client()
        await asyncio.gather(*(streamed(client) for _ in range(40)))
        for engine, tokens in zip(self.stage.engines, before):
            self.assertGreater(self.stage.metric(engine, TOKENS), tokens)

    @unittest.skipUnless(COUNTS, "this process or host cannot load the programs that count")
    async def test_an_engine_that_others_keep_busy_is_left_to_them(self):
        busy, free = self.stage.engines
        ready = asyncio.Semaphore(0)
        holders = [asyncio.create_task(hold(busy, ready)) for _ in range(ASIDE)]
        self.addCleanup(lambda: [holder.cancel() for holder in holders])
        await asyncio.wait_for(ready.acquire(), 10)
        await asyncio.to_thread(wait_for, "the load to be seen", lambda: self.stage.foreign_busy(busy) == ASIDE, 10)
        self.assertEqual(self.stage.foreign_busy(free), 0)

        client, gate = self.client(), asyncio.Semaphore(4)

        async def one(at):
            async with gate:
                await streamed(client, max_tokens=8, extra_headers={"X-Request-Id": f"aside-{at}"})

        await asyncio.gather(*(one(at) for at in range(40)))
        await asyncio.to_thread(wait_for, "the access log", lambda: len(self.stage.endpoints_of("aside-")) == 40, 5)
        went_to = self.stage.endpoints_of("aside-")
        self.assertGreaterEqual(went_to.count(f"127.0.0.1:{free}"), 36, went_to)

        for holder in holders:
            holder.cancel()
        await asyncio.to_thread(wait_for, "the load to be gone", lambda: self.stage.foreign_busy(busy) == 0, 10)

    async def test_errors_are_those_that_the_client_library_knows(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            await self.client().chat.completions.create(model="gpt-9", messages=QUESTION)
        self.assertEqual(caught.exception.code, "model_not_found")
        models = [model.id async for model in self.client().models.list()]
        self.assertEqual(models, [MODEL])

    def test_promtool_accepts_the_metrics(self):
        scrape = get(self.stage.admin, "/metrics")
        promtool = [os.environ.get("PROMTOOL", "promtool"), "check", "metrics"]
        checked = subprocess.run(promtool, input=scrape, capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""), scrape)


if __name__ == "__main__":
    stage.run(RealEngines, Stage())
