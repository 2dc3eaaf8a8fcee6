"""Makes a language model of random weights that real engines load: a Llama of two layers, as GGUF for llama.cpp or as a
folder of Hugging Face's for vLLM and SGLang.

Its answers are word salad, but greedy answers repeat, tokens stream, and slots fill: all that a gateway meets.
Usage: make_tiny_model.py OUT.gguf|OUT_FOLDER
"""

import json
import pathlib
import random
import sys

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2000
WIDTH = 64
HIDDEN = 128
LAYERS = 2
# Of 32 numbers each: vLLM on a CPU takes no fewer.
HEADS = 2
CONTEXT = 65536
BEGIN, END = "<|start|>", "<|end|>"
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
        special_tokens=[END, BEGIN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(rng), trainer)
    return bpe


def weights(vocabulary):
    """Every tensor by its names in GGUF and at Hugging Face."""
    rng = np.random.default_rng(7)

    def dense(rows, columns):
        drawn = rng.standard_normal((rows, columns), dtype=np.float32) / np.sqrt(columns)
        return drawn.astype(np.float32)

    def ones():
        return np.ones(WIDTH, dtype=np.float32)

    yield "token_embd", "model.embed_tokens", dense(vocabulary, WIDTH)
    for layer in range(LAYERS):
        block, layers = f"blk.{layer}", f"model.layers.{layer}"
        yield f"{block}.attn_norm", f"{layers}.input_layernorm", ones()
        for part, name in (("q", "q_proj"), ("k", "k_proj"), ("v", "v_proj"), ("output", "o_proj")):
            yield f"{block}.attn_{part}", f"{layers}.self_attn.{name}", dense(WIDTH, WIDTH)
        yield f"{block}.ffn_norm", f"{layers}.post_attention_layernorm", ones()
        yield f"{block}.ffn_gate", f"{layers}.mlp.gate_proj", dense(HIDDEN, WIDTH)
        yield f"{block}.ffn_up", f"{layers}.mlp.up_proj", dense(HIDDEN, WIDTH)
        yield f"{block}.ffn_down", f"{layers}.mlp.down_proj", dense(WIDTH, HIDDEN)
    yield "output_norm", "model.norm", ones()
    yield "output", "lm_head", dense(vocabulary, WIDTH)


def write_gguf(path, bpe):
    import gguf

    vocabulary = bpe.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.get)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    merges = json.loads(bpe.to_str())["model"]["merges"]
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
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token.startswith("<|") else normal for token in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_bos_token_id(vocabulary[BEGIN])
    writer.add_eos_token_id(vocabulary[END])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    writer.add_vocab_size(len(tokens))
    for name, _, tensor in weights(len(tokens)):
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_folder(path, bpe):
    from safetensors.numpy import save_file

    folder = pathlib.Path(path)
    folder.mkdir(exist_ok=True)
    vocabulary = bpe.get_vocab()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": len(vocabulary),
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "bos_token_id": vocabulary[BEGIN],
        "eos_token_id": vocabulary[END],
        "tie_word_embeddings": False,
    }
    words = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "chat_template": CHAT_TEMPLATE,
    }
    folder.joinpath("config.json").write_text(json.dumps(config))
    folder.joinpath("tokenizer_config.json").write_text(json.dumps(words))
    folder.joinpath("tokenizer.json").write_text(bpe.to_str())
    tensors = {f"{name}.weight": tensor for _, name, tensor in weights(len(vocabulary))}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def main(path):
    bpe = tokenizer(random.Random(7))
    write = write_gguf if path.endswith(".gguf") else write_folder
    write(path, bpe)


main(sys.argv[1])
