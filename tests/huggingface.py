"""Networks in pairs, ours and Hugging Face's with the same random weights, for the tests that compare them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model import GPT, GPTConfig
from model.gpt2 import gpt2_config, to_gpt2
from tests.needs import require
from training.checkpoint import model_tensors

transformers = require("transformers")

SIZES = [
    {"n_layer": 1, "n_head": 1, "n_embd": 8, "vocab_size": 11, "context_length": 6},
    {"n_layer": 3, "n_head": 4, "n_embd": 64, "vocab_size": 101, "context_length": 32},
    {"n_layer": 2, "n_head": 12, "n_embd": 96, "vocab_size": 257, "context_length": 16, "tied": False},
    {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 50, "context_length": 16, "bias": False},
]
TEXT = (
    """How much wood would a woodchuck chuck, if a woodchuck could chuck wood? 12 or 120, say the others;
the naïve ask: "What's the difference?", and nobody answers them, although everyone knows another answer.
"""
    * 5
)
END_OF_TEXT = "<|endoftext|>"


def empty_gpt2(config: GPTConfig) -> Any:
    """Hugging Face's network of the same shape, with weights of its own."""
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**gpt2_config(config, None))).eval()


@torch.no_grad()
def drawn(module: nn.Module, seed: int = 0) -> Any:
    """The network with every weight, bias and gain drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2, generator=generator)
    return module.eval()


def pair(**settings: Any) -> tuple[GPT, Any]:
    """Our network with random weights, and theirs with the same."""
    model = drawn(GPT(GPTConfig(**settings)))
    theirs = empty_gpt2(model.config)
    absent = theirs.load_state_dict(to_gpt2(model_tensors(model), model.config), strict=False)
    assert absent.missing_keys == (["lm_head.weight"] if model.config.tied else []) and not absent.unexpected_keys
    return model, theirs


def texts(model: GPT, rows: int, length: int) -> Tensor:
    """Some rows of random tokens."""
    return torch.randint(model.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(1))


def trained_tokenizer(size: int, end_first: bool = False) -> Any:
    """A byte-level BPE that Hugging Face's own library has trained, with end-of-text last or, as it likes it, first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size if end_first else size - 1,
        special_tokens=[END_OF_TEXT] if end_first else [],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])
    assert tokenizer.get_vocab_size() == size
    return tokenizer


def write_folder(
    folder: Path, *, size: int = 300, end_first: bool = False, shard_size: str = "5GB", **settings: Any
) -> Any:
    """A folder with network and tokenizer as `transformers` and `tokenizers` write it; returns the network."""
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 16} | settings
    ends = {"bos_token_id": None, "eos_token_id": None}
    theirs = drawn(transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=size, **ends, **shape)))
    theirs.save_pretrained(folder, max_shard_size=shard_size)
    trained_tokenizer(size, end_first).save(str(folder / "tokenizer.json"))
    return theirs
