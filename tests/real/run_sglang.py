"""Penstock in front of a real SGLang on the CPU: the tests of `recorded`, and what SGLang does like no other engine.

Driven by `cargo xtask test --real=sglang`, which also sets TINY_MODEL.
"""

import sys

import openai

import recorded
import stage
from stage import GREEDY

ON_A_CPU = "--device cpu --attention-backend torch_native --dtype float32 --mem-fraction-static 0.1 --sleep-on-idle"
SERVE = "--context-length 8192 --max-total-tokens 65536 --max-running-requests 64 --enable-metrics"


def serve(port, model):
    program = [sys.executable, str(stage.HERE / "serve_sglang.py"), "--host", "127.0.0.1", "--port", str(port)]
    return [*program, "--model-path", model, "--served-model-name", stage.MODEL, *ON_A_CPU.split(), *SERVE.split()]


class RealSglang(recorded.Case):
    RUNNING = "sglang:num_running_reqs"

    async def test_a_model_that_sglang_would_answer_for_under_any_name_is_refused(self):
        asked = {**GREEDY, "model": "gpt-9"}
        past = self.stage.client(self.stage.engines[0])
        self.addAsyncCleanup(past.close)
        self.assertEqual((await past.chat.completions.create(**asked)).model, "gpt-9")
        with self.assertRaises(openai.NotFoundError) as caught:
            await self.client().chat.completions.create(**asked)
        self.assertEqual(caught.exception.code, "model_not_found")


if __name__ == "__main__":
    stage.run(RealSglang, recorded.Stage(serve, SGLANG_USE_CPU_ENGINE="1"))
