"""What a network has, by arithmetic: the same, tensor by tensor, as the network itself."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.command import check, read
from configs.schema import GPTConfig, LoRAConfig, MLPConfig
from model import build_model
from tests.conftest import ROOT
from training.parameters import count_weights, parameters
from training.tally import exact_tally, lesson_tally

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 12, "vocab_size": 33, "context_length": 8}
GPT3 = GPTConfig(n_layer=96, n_head=96, n_embd=12_288, context_length=2_048)
NETWORKS = {
    "mlp": MLPConfig(sizes=[7, 5, 4, 3]),
    "linear": MLPConfig(sizes=[7, 3]),
    "gpt": GPTConfig(**SMALL),
    "untied": GPTConfig(**SMALL, tied=False),
    "without biases": GPTConfig(**SMALL, bias=False),
    "sinusoidal": GPTConfig(**SMALL, position="sinusoidal"),
    "rotary": GPTConfig(**SMALL, position="rotary"),
    "post": GPTConfig(**SMALL, norm="post"),
    "adapters": GPTConfig(**SMALL, lora=LoRAConfig(rank=3)),
    "few adapters": GPTConfig(**SMALL, tied=False, bias=False, lora=LoRAConfig(rank=2, targets=["value", "up"])),
}


def learned(config: MLPConfig | GPTConfig) -> list[tuple[str, tuple[int, ...], bool]]:
    """What torch finds in the network itself."""
    with torch.device("meta"):
        return [(name, tuple(p.shape), p.requires_grad) for name, p in build_model(config).named_parameters()]


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_tensor_is_listed_with_its_name_shape_and_whether_it_learns(kind):
    counted = [(p.name, p.shape, p.learns) for p in parameters(NETWORKS[kind])]
    assert counted == learned(NETWORKS[kind])
    assert count_weights(NETWORKS[kind]) == sum(p.count for p in parameters(NETWORKS[kind]))


def test_each_further_block_counts_the_same():
    shallow, deep = (count_weights(GPTConfig(**SMALL | {"n_layer": n})) for n in (2, 512))
    block = sum(p.count for p in parameters(GPTConfig(**SMALL)) if p.name.startswith("blocks.0."))
    assert deep - shallow == 510 * block


@settings(deadline=None, max_examples=25)
@given(
    layers=st.integers(1, 3), heads=st.integers(1, 3), each=st.sampled_from([2, 4]), vocabulary=st.integers(1, 40),
    position=st.sampled_from(["learned", "sinusoidal", "rotary"]), norm=st.sampled_from(["pre", "post"]),
    bias=st.booleans(), tied=st.booleans(), rank=st.integers(0, 2),
)  # fmt: skip
def test_the_exact_tally_is_the_number_of_parameters(layers, heads, each, vocabulary, position, norm, bias, tied, rank):
    config = GPTConfig(
        n_layer=layers, n_head=heads, n_embd=heads * each, vocab_size=vocabulary, context_length=5, position=position,
        norm=norm, bias=bias, tied=tied, lora=LoRAConfig(rank=rank) if rank else None,
    )  # fmt: skip
    with torch.device("meta"):
        there = sum(p.numel() for p in build_model(config).parameters())
    assert sum(row.total for row in exact_tally(config)) == sum(p.count for p in parameters(config)) == there


def test_gpt_3_is_the_lessons_table_to_the_digit():
    table = {row.name: f"{row.total:,}" for row in lesson_tally(GPT3)}
    assert table == {
        "Embedding": "617,558,016",
        "Key": "14,495,514,624",
        "Query": "14,495,514,624",
        "Value": "14,495,514,624",
        "Output": "14,495,514,624",
        "Up-projection": "57,982,058,496",
        "Down-projection": "57,982,058,496",
        "Unembedding": "617,558,016",
    }
    assert f"{sum(row.total for row in lesson_tally(GPT3)):,}" == "175,181,291,520"
    key = next(row for row in lesson_tally(GPT3) if row.name == "Key")
    assert key.product == "128 d_query x 12,288 d_embed x 96 n_heads x 96 n_layers"


def test_gpt_3_is_complete_with_what_the_lessons_leave_out():
    table = {row.name: row.total for row in exact_tally(GPT3)}
    assert (table["Positions"], table["Biases"], table["Norms"]) == (25_165_824, 10_616_832, 4_743_168)
    assert "Unembedding" not in table and sum(table.values()) == 174_604_259_328


def test_the_config_of_gpt_3_has_its_shape():
    model = check(read(str(ROOT / "configs/gpt3.toml")), {}).model
    assert model == GPT3


@pytest.mark.parametrize("count", [lesson_tally, exact_tally])
def test_the_digit_network_has_13_002_parameters(count):
    assert [row.total for row in count(MLPConfig())] == [12_544, 256, 160, 42]
    assert sum(row.total for row in count(MLPConfig())) == 13_002


GPT2 = [
    (12, 12, 768, 124_439_808),
    (24, 16, 1024, 354_823_168),
    (36, 20, 1280, 774_030_080),
    (48, 25, 1600, 1_557_611_200),
]


@pytest.mark.parametrize(("n_layer", "n_head", "n_embd", "exact"), GPT2)
def test_the_four_gpt_2_have_the_parameters_that_transformers_counts(n_layer, n_head, n_embd, exact):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPTConfig(n_layer=n_layer, n_head=n_head, n_embd=n_embd)
    with torch.device("meta"):
        theirs = GPT2LMHeadModel(GPT2Config(n_layer=n_layer, n_head=n_head, n_embd=n_embd))
    assert sum(p.count for p in parameters(config)) == theirs.num_parameters() == exact


def test_gpt_2_small_by_the_lessons_tally():
    assert sum(row.total for row in lesson_tally(GPTConfig())) == 162_129_408


def test_counting_needs_no_torch():
    code = "import sys, training.tally; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
