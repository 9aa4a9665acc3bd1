"""A pretrained encoder of two layers, as Hugging Face writes it, with weights at random."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

LAYERS, DIM, HEADS, POSITIONS = 2, 32, 4, 64
_WORDS = (
    "goal match team coach song guitar album concert bread soup oven salt orbit rocket moon star "
    "the a of and with some more other new old one two"
).split()
_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,<>?!'"
PIECES = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *_CHARACTERS,
    *(f"##{character}" for character in _CHARACTERS),
    *sorted(set(_WORDS) - {"a"}),
)


def write_tokenizer(directory: Path, pieces=PIECES, **config) -> Path:
    """Writes `vocab.txt` and `tokenizer_config.json`; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), "utf-8")
    options = {"do_lower_case": True, "strip_accents": None} | config
    (directory / "tokenizer_config.json").write_text(json.dumps(options), "utf-8")
    return directory


def write_encoder(directory: Path, *, seed: int = 0) -> Path:
    """Writes a whole encoder with a tokenizer; returns the directory."""
    write_tokenizer(directory)
    config = {
        "model_type": "bert",
        "vocab_size": len(PIECES),
        "hidden_size": DIM,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * DIM,
        "max_position_embeddings": POSITIONS,
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    }
    (directory / "config.json").write_text(json.dumps(config), "utf-8")
    save_file(_weights(np.random.default_rng(seed)), directory / "model.safetensors")
    return directory


def _weights(random: np.random.Generator) -> dict[str, np.ndarray]:
    weights = {}

    def add(name: str, *shape: int) -> None:
        weights[name] = (random.normal(size=shape) * 0.2).astype(np.float32)

    def add_dense(name: str, units: int, inputs: int) -> None:
        add(f"{name}.weight", units, inputs)
        add(f"{name}.bias", units)

    def add_norm(name: str) -> None:
        weights[f"{name}.weight"] = np.ones(DIM, np.float32)
        weights[f"{name}.bias"] = np.zeros(DIM, np.float32)

    add("embeddings.word_embeddings.weight", len(PIECES), DIM)
    add("embeddings.position_embeddings.weight", POSITIONS, DIM)
    add("embeddings.token_type_embeddings.weight", 2, DIM)
    add_norm("embeddings.LayerNorm")
    for i in range(LAYERS):
        layer = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            add_dense(f"{layer}.attention.self.{name}", DIM, DIM)
        add_dense(f"{layer}.attention.output.dense", DIM, DIM)
        add_norm(f"{layer}.attention.output.LayerNorm")
        add_dense(f"{layer}.intermediate.dense", 2 * DIM, DIM)
        add_dense(f"{layer}.output.dense", DIM, 2 * DIM)
        add_norm(f"{layer}.output.LayerNorm")
    add_dense("pooler.dense", DIM, DIM)
    return weights
