"""Makes a language model of random weights that a real engine loads: a Llama of two layers, as GGUF.

Its answers are word salad, but greedy answers repeat, tokens stream, and slots fill: all that a gateway meets.
Usage: make_tiny_model.py OUT.gguf
"""

import json
import random
import sys

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2000
WIDTH = 64
HIDDEN = 128
LAYERS = 2
HEADS = 4
CONTEXT = 65536
CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}: {{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant: {% endif %}"
)


def corpus(rng):
    """Sentences of made-up words: enough pairs for the merges, the same on every machine."""
    syllables = [c + v + e for c in "bdfgklmnprstvz" for v in "aeiou" for e in ("", "n", "r", "s")]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(3000)]
    for _ in range(2000):
        yield " ".join(rng.choices(words, k=12)) + "."


def tokenizer(rng):
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>", "<|start|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(rng), trainer)
    return bpe


def write_vocabulary(writer, bpe):
    vocabulary = bpe.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    merges = json.loads(bpe.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token.startswith("<|") else normal for token in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(vocabulary["<|start|>"])
    writer.add_eos_token_id(vocabulary["<|end|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    return len(tokens)


def write_weights(writer, vocabulary):
    rng = np.random.default_rng(7)

    def dense(name, rows, columns):
        weights = rng.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns)
        writer.add_tensor(name, weights.astype(np.float32))

    def ones(name):
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))

    dense("token_embd.weight", vocabulary, WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            dense(f"{block}.{part}.weight", WIDTH, WIDTH)
        ones(f"{block}.ffn_norm.weight")
        dense(f"{block}.ffn_gate.weight", HIDDEN, WIDTH)
        dense(f"{block}.ffn_up.weight", HIDDEN, WIDTH)
        dense(f"{block}.ffn_down.weight", WIDTH, HIDDEN)
    ones("output_norm.weight")
    dense("output.weight", vocabulary, WIDTH)


def main(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("penstock-tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    vocabulary = write_vocabulary(writer, tokenizer(random.Random(7)))
    writer.add_vocab_size(vocabulary)
    write_weights(writer, vocabulary)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main(sys.argv[1])
