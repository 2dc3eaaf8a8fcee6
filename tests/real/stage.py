"""The processes of a test against real engines: the engines, and Penstock in front of them, on the loopback.

`cargo xtask test --real` sets PENSTOCK_BIN, and PENSTOCK_TEST_KERNEL to the highest rung of this host.
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
KERNEL = os.environ.get("PENSTOCK_TEST_KERNEL", "off")
COUNTS = KERNEL in ("account", "full")
SPLICES = KERNEL == "full"
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
metadata: {{name: engine-{engine}, labels: {{app: tiny}}}}
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
    """Everything ends with it. Who derives from it says in `begin` what it starts."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.engines = []
        self.port, self.admin = free_port(), free_port()
        self.logs = {}
        self.children = []
        self.gateway = None

    def start_engine(self, serve, **environment):
        """`serve` makes the command from the port."""
        port = free_port()
        self.engines.append(port)
        self.start(f"engine-{port}", serve(port), **environment)

    def start_gateway(self):
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

    def start(self, name, arguments, **environment):
        path = pathlib.Path(self.folder.name, f"{name}.log")
        self.logs[name] = path
        with path.open("wb") as log:
            child = subprocess.Popen(
                arguments, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
            )
        self.children.append(child)
        return child

    def metric(self, port, name, *labels):
        """The sum of a metric's series that hold these label texts."""
        lines = get(port, "/metrics").splitlines()
        series = (line.rsplit(" ", 1) for line in lines if line.startswith((name + "{", name + " ")))
        return sum(float(value) for key, value in series if all(label in key for label in labels))

    def entries(self, request_id):
        """Of the access log, those whose request id begins so."""
        lines = self.logs["penstock"].read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in entries if (entry.get("request_id") or "").startswith(request_id)]

    def client(self, port=None, **more):
        base = f"http://127.0.0.1:{port or self.port}/v1"
        return openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0, timeout=60, **more)

    def stop(self):
        # In order: a gateway that is killed leaves its programs to the next one.
        if self.gateway:
            self.gateway.send_signal(signal.SIGTERM)
            try:
                self.gateway.wait(10)
            except subprocess.TimeoutExpired:
                print("penstock did not end when asked to", file=sys.stderr)
        for child in self.children:
            child.send_signal(signal.SIGKILL)
            child.wait()
        self.folder.cleanup()


class Case(unittest.IsolatedAsyncioTestCase):
    # Of all its tests; `run` sets it.
    stage = None

    async def asyncSetUp(self):
        # unittest turns it on, and then every slow step of the event loop is told.
        asyncio.get_running_loop().set_debug(False)


def run(case, stage):
    """Every test of a case, on a stage that begins and ends here; exits."""
    case.stage = stage
    try:
        stage.begin()
        result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromTestCase(case))
    except AssertionError:
        for name, log in stage.logs.items():
            print(f"{name}:\n{log.read_text()[-4000:]}", file=sys.stderr)
        raise
    finally:
        stage.stop()
    failed = len(result.failures) + len(result.errors)
    print(f"real: {result.testsRun - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)
