"""Runs SGLang's server with the recorder inside it: SGLang has no option for a middleware.

Usage: serve_sglang.py OPTION..., as `python -m sglang.launch_server` takes them.
"""

import runpy

from sglang.srt.entrypoints.http_server import app

import record

app.add_middleware(record.Record)
runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)
