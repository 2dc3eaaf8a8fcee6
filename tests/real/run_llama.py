"""Penstock in front of two real llama.cpp servers, asked by openai-python, scraped by promtool.

Driven by `cargo xtask test --real`, which sets PENSTOCK_BIN, PROMTOOL and TINY_MODEL, and PENSTOCK_TEST_KERNEL to the
highest rung of this host. Everything listens on the loopback and ends with this process.
"""

import asyncio
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

import openai

HERE = pathlib.Path(__file__).resolve().parent
MODEL = "tiny"
REPLICAS = 2
KERNEL = os.environ.get("PENSTOCK_TEST_KERNEL", "off")
COUNTS = KERNEL in ("account", "full")
# Streams that somebody holds at one engine, past Penstock: fewer than its slots.
ASIDE = 6
QUESTION = [{"role": "user", "content": "tell me of the red barn"}]
GREEDY = {"model": MODEL, "messages": QUESTION, "temperature": 0, "seed": 7, "max_tokens": 24}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


def wait_for(what, ask, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if ask():
                return
        except (OSError, urllib.error.URLError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


def manifests(port, engines):
    backends = "".join(
        f"""---
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: Backend
metadata: {{name: llama-{engine}, labels: {{app: tiny}}}}
spec: {{endpoints: [{{ip: {{address: 127.0.0.1, port: {engine}}}}}]}}
"""
        for engine in engines
    )
    return f"""apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {{name: penstock}}
spec: {{controllerName: gateway.envoyproxy.io/gatewayclass-controller}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: gw}}
spec:
  gatewayClassName: penstock
  addresses: [{{type: IPAddress, value: 127.0.0.1}}]
  listeners: [{{name: web, protocol: HTTP, port: {port}}}]
---
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {{name: tiny}}
spec: {{selector: {{matchLabels: {{app: tiny}}}}, targetPorts: [{{number: 8000}}]}}
---
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModel
metadata: {{name: tiny}}
spec: {{modelName: {MODEL}, criticality: Critical, poolRef: {{name: tiny, group: inference.networking.k8s.io}}}}
{backends}"""


class Stage:
    """The processes of all tests: two engines and a gateway."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.engines = [free_port() for _ in range(REPLICAS)]
        self.port, self.admin = free_port(), free_port()
        self.logs = {}
        self.children = []
        for engine in self.engines:
            serve = [sys.executable, str(HERE / "serve_llama.py"), os.environ["TINY_MODEL"], str(engine), MODEL]
            self.start(f"llama-{engine}", serve)
        for engine in self.engines:
            wait_for("llama.cpp", lambda engine=engine: json.loads(get(engine, "/health"))["status"] == "ok", 60)
        path = pathlib.Path(self.folder.name, "all.yaml")
        path.write_text(manifests(self.port, self.engines))
        run = [os.environ["PENSTOCK_BIN"], "run", "-f", str(path), "--admin", f"127.0.0.1:{self.admin}"]
        run += ["--kernel", KERNEL]
        if COUNTS:
            # Pins of its own: no other gateway of this host shares its counts, or keeps it from having any.
            mounted = 'mount -t bpf -o mode=0700 none /sys/fs/bpf && exec "$0" "$@"'
            run = ["unshare", "--mount", "sh", "-c", mounted, *run]
        self.gateway = self.start("penstock", run)
        wait_for("penstock", lambda: get(self.admin, "/readyz") is not None)

    def start(self, name, arguments):
        path = pathlib.Path(self.folder.name, f"{name}.log")
        self.logs[name] = path
        with path.open("wb") as log:
            child = subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT)
        self.children.append(child)
        return child

    def slots_at_work(self):
        slots = [slot for engine in self.engines for slot in json.loads(get(engine, "/slots"))]
        return sum(slot["is_processing"] for slot in slots)

    def foreign_busy(self, engine):
        """What the kernel counts of others at an engine, as Penstock shows it."""
        name = "penstock_endpoint_kernel_foreign_busy{"
        lines = (line for line in get(self.admin, "/metrics").splitlines() if line.startswith(name))
        return sum(float(line.split()[-1]) for line in lines if f'"127.0.0.1:{engine}"' in line)

    def endpoints_of(self, request_id):
        """Where the requests whose id begins so went, as the access log says."""
        lines = self.logs["penstock"].read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry["endpoint"] for entry in entries if (entry.get("request_id") or "").startswith(request_id)]

    def client(self, port=None):
        base = f"http://127.0.0.1:{port or self.port}/v1"
        return openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0, timeout=60)

    def stop(self):
        # In order: a gateway that is killed leaves its programs to the next one.
        self.gateway.send_signal(signal.SIGTERM)
        try:
            self.gateway.wait(10)
        except subprocess.TimeoutExpired:
            print("penstock did not end when asked to", file=sys.stderr)
        for child in self.children:
            child.send_signal(signal.SIGKILL)
            child.wait()
        self.folder.cleanup()


STAGE = None


def setUpModule():
    global STAGE
    STAGE = Stage()


def tearDownModule():
    STAGE.stop()


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


class RealEngines(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        # unittest turns it on, and then every slow step of the event loop is told.
        asyncio.get_running_loop().set_debug(False)

    def client(self, port=None):
        client = STAGE.client(port)
        self.addAsyncCleanup(client.close)
        return client

    async def test_answers_are_those_of_the_engine(self):
        direct = await self.client(STAGE.engines[0]).chat.completions.create(**GREEDY)
        through = await self.client().chat.completions.create(**GREEDY)
        self.assertEqual(through.choices[0].message.content, direct.choices[0].message.content)
        text, usage = await streamed(self.client())
        self.assertEqual(text, direct.choices[0].message.content)
        self.assertEqual(usage.completion_tokens, direct.usage.completion_tokens)

    async def test_64_streams_at_a_time(self):
        expected, _ = await streamed(self.client(STAGE.engines[0]))
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
        self.assertEqual(STAGE.slots_at_work(), 1)
        await stream.close()
        wait_for("the slot to be free", lambda: STAGE.slots_at_work() == 0, 2)

    async def test_both_replicas_are_used(self):
        before = [self.tokens(engine) for engine in STAGE.engines]
        client = self.client()
        await asyncio.gather(*(streamed(client) for _ in range(40)))
        for engine, tokens in zip(STAGE.engines, before):
            self.assertGreater(self.tokens(engine), tokens)

    @unittest.skipUnless(COUNTS, "this process or host cannot load the programs that count")
    async def test_an_engine_that_others_keep_busy_is_left_to_them(self):
        busy, free = STAGE.engines
        ready = asyncio.Semaphore(0)
        holders = [asyncio.create_task(hold(busy, ready)) for _ in range(ASIDE)]
        self.addCleanup(lambda: [holder.cancel() for holder in holders])
        await asyncio.wait_for(ready.acquire(), 10)
        await asyncio.to_thread(wait_for, "the load to be seen", lambda: STAGE.foreign_busy(busy) == ASIDE, 10)
        self.assertEqual(STAGE.foreign_busy(free), 0)

        client, gate = self.client(), asyncio.Semaphore(4)

        async def one(at):
            async with gate:
                await streamed(client, max_tokens=8, extra_headers={"X-Request-Id": f"aside-{at}"})

        await asyncio.gather(*(one(at) for at in range(40)))
        await asyncio.to_thread(wait_for, "the access log", lambda: len(STAGE.endpoints_of("aside-")) == 40, 5)
        went_to = STAGE.endpoints_of("aside-")
        self.assertGreaterEqual(went_to.count(f"127.0.0.1:{free}"), 36, went_to)

        for holder in holders:
            holder.cancel()
        await asyncio.to_thread(wait_for, "the load to be gone", lambda: STAGE.foreign_busy(busy) == 0, 10)

    async def test_errors_are_those_that_the_client_library_knows(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            await self.client().chat.completions.create(model="gpt-9", messages=QUESTION)
        self.assertEqual(caught.exception.code, "model_not_found")
        models = [model.id async for model in self.client().models.list()]
        self.assertEqual(models, [MODEL])

    def test_promtool_accepts_the_metrics(self):
        scrape = get(STAGE.admin, "/metrics")
        promtool = [os.environ.get("PROMTOOL", "promtool"), "check", "metrics"]
        checked = subprocess.run(promtool, input=scrape, capture_output=True, text=True)
        self.assertEqual((checked.returncode, checked.stdout + checked.stderr), (0, ""), scrape)

    @staticmethod
    def tokens(engine):
        lines = get(engine, "/metrics").splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("llamacpp:tokens_predicted_total"))


def main():
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    failed = len(result.failures) + len(result.errors)
    print(f"real: {result.testsRun - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
