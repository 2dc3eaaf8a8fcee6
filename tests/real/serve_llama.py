"""Runs llama.cpp's own HTTP server on a model, from the wheel of xllamacpp, until it is killed.

The wheel holds the whole server of llama.cpp, built for any x86-64 with AVX2 or for arm64; wheels that bring the
`llama-server` program are built for the machine they were made on and die of SIGILL elsewhere.
Usage: serve_llama.py MODEL.gguf PORT ALIAS
"""

import signal
import sys

import xllamacpp


def main(model, port, alias):
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {alias}
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_ctx = 65536
    params.n_parallel = 8
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.n_threads_http = 4
    params.n_gpu_layers = 0
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.use_jinja = True
    params.ui = False
    server = xllamacpp.Server(params)
    print(f"llama.cpp {alias} listens on {server.listening_address}", file=sys.stderr, flush=True)
    signal.pause()


main(*sys.argv[1:])
