"""Penstock in front of a real vLLM on the CPU: the tests of `recorded`.

Driven by `cargo xtask test --real=vllm`, which also sets TINY_MODEL.
"""

import sys

import recorded
import stage

SERVE = "--dtype float32 --max-model-len 8192 --max-num-seqs 64 --enforce-eager --middleware record.Record".split()
ON_A_CPU = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}


def serve(port, model):
    program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port)]
    return [*program, "--model", model, "--served-model-name", stage.MODEL, *SERVE]


class RealVllm(recorded.Case):
    RUNNING = "vllm:num_requests_running"


if __name__ == "__main__":
    stage.run(RealVllm, recorded.Stage(serve, **ON_A_CPU))
