"""Writes a tiny random chat model in the Hugging Face layout: `make_tiny_model.py DIRECTORY`.

Random weights say nothing sensible, but the engine that loads them is real: its HTTP surface, its streaming, its token
counts. Made locally, since tests download no models. Needs numpy, safetensors and tokenizers only.
"""

from __future__ import annotations

import email
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD, FFN, VOCAB = 64, 2, 4, 2, 32, 128, 2048

TEMPLATE = """{%- if tools %}<|im_start|>system
Tools:{% for tool in tools %}
{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def tokenizer() -> Tokenizer:
    """A byte-level BPE trained on the standard library's own prose."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    corpus = [path.read_text(errors="ignore") for path in sorted(Path(email.__file__).parent.glob("*.py"))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    return made


def weights(vocab: int) -> dict[str, np.ndarray]:
    """Random Qwen3 weights, always the same."""
    chance = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray:
        return (chance.standard_normal(shape) * 0.05).astype(np.float32)

    made = {"model.embed_tokens.weight": matrix(vocab, HIDDEN), "lm_head.weight": matrix(vocab, HIDDEN)}
    made["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        made |= {
            f"{at}self_attn.q_proj.weight": matrix(HEADS * HEAD, HIDDEN),
            f"{at}self_attn.k_proj.weight": matrix(KV_HEADS * HEAD, HIDDEN),
            f"{at}self_attn.v_proj.weight": matrix(KV_HEADS * HEAD, HIDDEN),
            f"{at}self_attn.o_proj.weight": matrix(HIDDEN, HEADS * HEAD),
            f"{at}self_attn.q_norm.weight": np.ones(HEAD, np.float32),
            f"{at}self_attn.k_norm.weight": np.ones(HEAD, np.float32),
            f"{at}mlp.gate_proj.weight": matrix(FFN, HIDDEN),
            f"{at}mlp.up_proj.weight": matrix(FFN, HIDDEN),
            f"{at}mlp.down_proj.weight": matrix(HIDDEN, FFN),
            f"{at}input_layernorm.weight": np.ones(HIDDEN, np.float32),
            f"{at}post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
        }
    return made


def main(directory: Path) -> None:
    """Write the model."""
    directory.mkdir(parents=True, exist_ok=True)
    made = tokenizer()
    made.save(str(directory / "tokenizer.json"))
    end = made.token_to_id("<|im_end|>")
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "bos_token_id": 0,
        "eos_token_id": end,
        "pad_token_id": 0,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "max_position_embeddings": 2048,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": made.get_vocab_size(),
    }
    (directory / "config.json").write_text(json.dumps(config))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 2048,
        "chat_template": TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    save_file(weights(made.get_vocab_size()), str(directory / "model.safetensors"), metadata={"format": "pt"})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
