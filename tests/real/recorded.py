"""What the stages of vLLM and SGLang share: an engine that writes down what it answers, and Penstock in front of it, asked by
openai-python. What each client gets is what the engine wrote.
"""

import asyncio
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import httpx
import openai

import stage
from stage import GREEDY, KERNEL, MODEL, SPLICES, get, wait_for

# An engine loads for a minute where it has a core of its own.
PATIENCE = 480
AT_ONCE = 64
EVENT = b"data: {"
# Of all events: those before the first arm, the usage and what was written while the gateway took a stream back are relayed.
SPLICED_SHARE = 0.5


class Stage(stage.Stage):
    """One engine and a gateway, for all tests. `serve` makes the engine's command from a port and the model's folder."""

    def __init__(self, serve, **environment):
        super().__init__()
        self.record = pathlib.Path(self.folder.name, "record")
        self.serve = serve
        inside = {"RECORD": str(self.record), "PYTHONPATH": str(stage.HERE)}
        self.environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **inside, **environment}

    def begin(self):
        self.start_engine(lambda port: self.serve(port, os.environ["TINY_MODEL"]), **self.environment)
        [engine] = self.children
        wait_for("the engine", lambda: engine.poll() is not None or get(self.engines[0], "/health") == "", PATIENCE)
        assert engine.poll() is None, "the engine gave up"
        self.start_gateway()

    def stop(self):
        # Asked to end, it ends its own processes too.
        engines = [child for child in self.children if child is not self.gateway]
        for engine in engines:
            engine.send_signal(signal.SIGTERM)
            try:
                engine.wait(30)
            except subprocess.TimeoutExpired:
                print("the engine did not end when asked to", file=sys.stderr)
        super().stop()

    def written(self, request_id):
        """What the engine wrote for each request whose id begins so, by its id."""
        lines = (json.loads(line) for line in self.record.read_text().splitlines())
        return {line["request_id"]: line for line in lines if line["request_id"].startswith(request_id)}


def usage_of(body):
    """Of the last event that has one."""
    events = [json.loads(line[len("data: ") :]) for line in body.decode().splitlines() if line.startswith("data: {")]
    return [event["usage"] for event in events if event.get("usage")][-1]


class Case(stage.Case):
    """Tests of any such engine."""

    # Its metric of the requests that it works on.
    RUNNING = None

    def client(self, most=None):
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        client = self.stage.client(http_client=httpx.AsyncClient(limits=limits, timeout=60))
        self.addAsyncCleanup(client.close)
        return client

    async def ask(self, client, request_id, **more):
        """The bytes of a streamed answer as openai-python has them, and its end of the connection."""
        asked = {**GREEDY, "stream": True, "stream_options": {"include_usage": True}, **more}
        header = {"X-Request-Id": request_id}
        async with client.chat.completions.with_streaming_response.create(**asked, extra_headers=header) as answer:
            port = answer.http_response.extensions["network_stream"].get_extra_info("client_addr")[1]
            return b"".join([piece async for piece in answer.iter_bytes()]), port

    async def entries(self, request_id, count):
        await asyncio.to_thread(wait_for, "the access log", lambda: len(self.stage.entries(request_id)) == count, 10)
        return {entry["request_id"]: entry for entry in self.stage.entries(request_id)}

    def assert_sane(self):
        self.assertEqual(self.stage.metric(self.stage.admin, "penstock_endpoint_splice_anomalies_total"), 0)
        self.assertEqual(self.stage.metric(self.stage.admin, "penstock_splice_hand_backs_total", "unequal"), 0)

    async def test_64_streams_at_a_time_are_what_the_engine_wrote_and_their_usage_is_known(self):
        client = self.client()

        async def one(at):
            question = [{"role": "user", "content": f"tell me of barn {at}" + " and the next" * (at % 9)}]
            more = {"messages": question, "max_tokens": 8 + at * 3, "extra_body": {"ignore_eos": True}}
            return (await self.ask(client, f"many-{at}", **more))[0]

        bodies = await asyncio.gather(*(one(at) for at in range(AT_ONCE)))
        entries, written = await self.entries("many-", AT_ONCE), self.stage.written("many-")
        events, spliced = 0, 0
        for at, body in enumerate(bodies):
            entry, wrote, usage = entries[f"many-{at}"], written[f"many-{at}"], usage_of(body)
            self.assertEqual(hashlib.sha256(body).hexdigest(), wrote["sha256"], f"{at}: other bytes than the engine wrote")
            self.assertTrue(body.endswith(b"data: [DONE]\n\n"))
            self.assertEqual(usage["completion_tokens"], 8 + at * 3)
            counted = {name: entry["usage"][name] for name in ("input_tokens", "output_tokens")}
            told = {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]}
            self.assertEqual(counted, told)
            self.assertEqual(entry["events"], body.count(EVENT))
            self.assertEqual(entry["bytes_out"], len(body))
            events, spliced = events + entry["events"], spliced + entry["spliced_events"]
        print(f"{spliced} of {events} events were spliced ({KERNEL})", file=sys.stderr)
        if SPLICES:
            self.assertGreater(spliced, events * SPLICED_SHARE)
        self.assert_sane()

    async def test_connections_are_kept_on_both_sides_of_a_splice(self):
        client = self.client(most=1)
        answers = [await self.ask(client, f"kept-{at}") for at in range(12)]
        entries, written = await self.entries("kept-", 12), self.stage.written("kept-")
        for at, (body, _) in enumerate(answers):
            self.assertEqual(hashlib.sha256(body).hexdigest(), written[f"kept-{at}"]["sha256"])
        self.assertEqual(len({port for _, port in answers}), 1, "the client's connection was not kept")
        # uvicorn closes what is silent for five seconds: a stall of this machine may cost one.
        self.assertLessEqual(len({wrote["peer"] for wrote in written.values()}), 2, "the engine's was not")
        if SPLICES:
            self.assertGreater(sum(entry["spliced_events"] for entry in entries.values()), 0)
        self.assert_sane()

    async def test_a_client_that_leaves_ends_the_generation(self):
        endless = {"max_tokens": 4000, "extra_body": {"ignore_eos": True}}
        stream = await self.client().chat.completions.create(**{**GREEDY, **endless}, stream=True)
        events = aiter(stream)
        for _ in range(20):
            await anext(events)
        running = lambda: self.stage.metric(self.stage.engines[0], self.RUNNING)
        await asyncio.to_thread(wait_for, "the engine to be seen at work", lambda: running() == 1, 5)
        await stream.close()
        await asyncio.to_thread(wait_for, "the engine to be free", lambda: running() == 0, 5)
        self.assert_sane()

    async def test_errors_of_the_engine_are_what_the_client_library_knows(self):
        with self.assertRaises(openai.BadRequestError):
            await self.client().chat.completions.create(**{**GREEDY, "max_tokens": 100_000})

    async def test_the_models_of_the_engine_are_listed(self):
        models = [model.id async for model in self.client().models.list()]
        self.assertEqual(models, [MODEL])
