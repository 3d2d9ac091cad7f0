"""Sampling speed, against other libraries on the same weights: python -m benchmarks.sampling [PART...] [--runs 5].

All samplers of a part take turns in one process, so that noise affects them equally; the figures are tokens per second.
The results go to benchmarks/results/sampling.json, each part with the machine it ran on.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.figures import RESULTS, Rows, about, clock_call, summary
from configs.errors import UserError, answer
from data.bpe import gpt2_tokenizer
from data.tokenizer import ByteTokenizer, Tokenizer
from model import GPT, GPTConfig
from model.cache import Reader
from model.generate import Sampling, distribution, draw, grow, stream, window_start
from model.gpt2 import to_gpt2
from model.quantize import quantize
from tests.huggingface import empty_gpt2
from training.checkpoint import model_tensors
from training.run import version
from training.speak import read

SAMPLING = Sampling(temperature=0.8, top_k=50)
SMALL = {"n_layer": 4, "n_head": 4, "n_embd": 128, "vocab_size": 65}  # a character-level network
PROMPT = 32  # tokens

Writer = Callable[[int], Any]
"""generates the given number of tokens after the prompt"""


def network(**settings: Any) -> GPT:
    """A network with random weights, always the same ones; GPT-2 small by default."""
    torch.manual_seed(0)
    return GPT(GPTConfig(**settings)).eval()


def device_of(model: GPT) -> torch.device:
    """The device of the model's weights."""
    return next(model.parameters()).device


def prompt_for(model: GPT) -> list[int]:
    """32 random tokens, or half a context if that is shorter."""
    count = min(PROMPT, model.config.context_length // 2)
    return torch.randint(model.config.vocab_size, (count,), generator=torch.Generator().manual_seed(0)).tolist()


def ours(model: GPT, rows: int = 1) -> Writer:
    """Our sampler, with its cache."""
    reader, prompts = Reader(model), [prompt_for(model)] * rows
    generators = [torch.Generator().manual_seed(row) for row in range(rows)]
    return lambda count: list(grow(reader, prompts, count, SAMPLING, generators))


def uncached(model: GPT) -> Writer:
    """A plain loop that recomputes the whole window for each token."""
    at = device_of(model)

    @torch.inference_mode()
    def write(count: int) -> list[int]:
        text, generator = prompt_for(model), torch.Generator().manual_seed(0)
        for _ in range(count):
            view = text[window_start(len(text), model.config.context_length) :]
            text.append(draw(distribution(model.next_logits(torch.tensor([view], device=at))[0], SAMPLING), generator))
        return text

    return write


def same_in_transformers(model: GPT) -> Any:
    """Hugging Face's network with the same weights."""
    theirs = empty_gpt2(model.config)
    theirs.load_state_dict(
        to_gpt2(model_tensors(model), model.config), strict=False
    )  # the tied matrix is given only once
    theirs.tie_weights()
    return theirs


def huggingface(model: GPT, dtype: torch.dtype = torch.float32, rows: int = 1) -> Writer:
    """transformers' generate, with its cache, on the same weights."""
    theirs = same_in_transformers(model).to(device_of(model), dtype)
    view = torch.tensor([prompt_for(model)] * rows, device=device_of(model))
    settings = {"do_sample": True, "temperature": SAMPLING.temperature, "top_k": SAMPLING.top_k, "use_cache": True}

    @torch.inference_mode()
    def write(count: int) -> None:
        mask = torch.ones_like(view)
        tokens = theirs.generate(view, attention_mask=mask, max_new_tokens=count, pad_token_id=0, **settings)
        assert tokens.shape == (rows, view.size(1) + count)

    return write


def ctranslate2_int8(model: GPT, rows: int = 1) -> Writer:
    """CTranslate2's int8 on the same weights."""
    import ctranslate2
    from ctranslate2.converters.transformers import GPT2Loader

    class Vocabulary:
        """Only its size matters."""

        bos_token = eos_token = unk_token = "0"

        def get_vocab(self) -> dict[str, int]:
            return {str(token): token for token in range(model.config.vocab_size)}

    spec = GPT2Loader()(same_in_transformers(model), Vocabulary())
    spec.validate()
    spec.optimize(quantization="int8")
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        threads = torch.get_num_threads()
        generator = ctranslate2.Generator(folder, compute_type="int8", intra_threads=threads, inter_threads=1)
    settings = {"sampling_topk": SAMPLING.top_k, "sampling_temperature": SAMPLING.temperature}
    words = [[str(token) for token in prompt_for(model)]] * rows

    def write(count: int) -> None:
        lengths = {"max_length": count, "min_length": count, "include_prompt_in_result": False}
        for result in generator.generate_batch(words, **settings, **lengths):
            assert len(result.sequences_ids[0]) == count

    return write


def race(writers: dict[str, Writer], count: int, runs: int, rows: int = 1) -> Rows:
    """Tokens per second of every writer; they take turns, after one short warm-up each."""
    for write in writers.values():
        write(2)
    results = []
    for run in range(runs):
        row: dict[str, Any] = {"run": run}
        for name, write in writers.items():
            row[name] = rows * count / clock_call(lambda: write(count))  # noqa: B023 - called at once
            print(f"  {run} {name}: {row[name]:.1f}", file=sys.stderr, flush=True)
        results.append(row)
    return results


def ratios(rows: Rows, *pairs: tuple[str, str]) -> Rows:
    """The rows, with a speed ratio added for each pair."""
    return [row | {f"{a} / {b}": row[a] / row[b] for a, b in pairs} for row in rows]


def one(runs: int, count: int = 100) -> Rows:
    """GPT-2 small, one text, and the share of the limit set by memory bandwidth."""
    writers = {
        "fp32": ours(network()),
        "bf16": ours(network().bfloat16()),
        "int8": ours(quantize(network())),
        "hf fp32": huggingface(network()),
        "hf bf16": huggingface(network(), torch.bfloat16),
        "ctranslate2 int8": ctranslate2_int8(network()),
        "uncached": uncached(network()),
    }
    rows = race(writers, count, runs)
    model = network()
    weights = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "position" not in name)
    for row in rows:
        row["read GB/s"] = read_bandwidth() / 1e9
        for name, size in (("fp32", 4), ("bf16", 2), ("int8", 1)):
            row[f"share of the limit, {name}"] = row[name] * weights * size / 1e9 / row["read GB/s"]
    pairs = [("fp32", "hf fp32"), ("bf16", "hf bf16"), ("int8", "hf bf16"), ("int8", "hf fp32")]
    return ratios(rows, *pairs, ("int8", "ctranslate2 int8"), ("fp32", "uncached"))


def read_bandwidth(size: int = 2**29) -> float:
    """Memory bandwidth in bytes per second: the fastest of five sums over a tensor far larger than any cache."""
    values = torch.ones(size // 4)
    return size / min(clock_call(values.sum) for _ in range(5))


def sixteen(runs: int, count: int = 50) -> Rows:
    """GPT-2 small, sixteen texts in a batch: tokens per second in total."""
    writers = {
        "fp32": ours(network(), 16),
        "int8": ours(quantize(network()), 16),
        "hf fp32": huggingface(network(), rows=16),
        "ctranslate2 int8": ctranslate2_int8(network(), 16),
    }
    pairs = [("fp32", "hf fp32"), ("int8", "hf fp32"), ("int8", "ctranslate2 int8")]
    return ratios(race(writers, count, runs, 16), *pairs)


def small(runs: int, count: int = 990) -> Rows:
    """4 x 128, context 1,024: as many characters as fit after the prompt."""
    model = network(**SMALL, context_length=1024)
    writers = {"fp32": ours(model), "hf fp32": huggingface(model), "uncached": uncached(model)}
    return ratios(race(writers, count, runs), ("fp32", "uncached"), ("fp32", "hf fp32"))


def jumping(runs: int, count: int = 1000) -> Rows:
    """4 x 128, context 64: a text far longer than the context, so the window jumps (other libraries stop there)."""
    model = network(**SMALL, context_length=64)
    return ratios(race({"fp32": ours(model), "uncached": uncached(model)}, count, runs), ("fp32", "uncached"))


def strange(size: int) -> dict[str, str]:
    """Unusual prompts of `size` characters."""
    generator = random.Random(0)
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    return {
        "one letter": "a" * size,
        "spaces": " " * size,
        "no newline": "the quick brown fox " * (size // 20),
        "control characters": "".join(map(chr, range(32))) * (size // 32),
        "lone surrogates": "\udfff\ud800" * (size // 2),
        "random Unicode": "".join(map(chr, generator.choices(points, k=size))),
    }


def prompts(runs: int, count: int = 10_000_000) -> Rows:
    """Seconds to the first token after a prompt of ten million characters (4 x 128, context 1,024, already loaded)."""
    rows: Rows = [{"run": run} for run in range(runs)]
    for name, tokenizer in {"byte": ByteTokenizer(), "gpt2": gpt2_tokenizer()}.items():
        reader = Reader(network(**SMALL | {"vocab_size": tokenizer.vocab_size}, context_length=1024))
        for kind, prompt in strange(count).items():
            for row in rows:
                row[f"{name}, {kind}"] = clock_call(lambda: first_token_after(prompt, tokenizer, reader))  # noqa: B023
    return rows


def first_token_after(prompt: str, tokenizer: Tokenizer, reader: Reader) -> None:
    """Encode a prompt as sample.py does and generate one token; a prompt that is not valid text is refused."""
    try:
        tokens = read(prompt, tokenizer, reader.config.context_length)
    except UserError:
        return
    next(stream(reader, tokens, 1))


PARTS: dict[str, Callable[..., Rows]] = {
    "small": small,
    "jumping": jumping,
    "one": one,
    "sixteen": sixteen,
    "prompts": prompts,
}


def main() -> None:
    """Measure the parts named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="repetitions (default: 5)")
    parser.add_argument("--count", type=int, help="for a trial: tokens (prompts: characters); results are not saved")
    asked = parser.parse_args()
    for name in asked.parts or PARTS:
        print(f"{name}: {PARTS[name].__doc__}", file=sys.stderr)
        rows = PARTS[name](asked.runs, *([asked.count] if asked.count else []))
        result = {"rows": rows, "summary": summary(rows), "machine": described()}
        if not asked.count:
            threads = torch.get_num_threads()
            write_result(RESULTS / "sampling.json", name if threads == 1 else f"{name}, {threads} threads", result)
        for column, values in result["summary"].items():
            print(f"{name}: {column}: median {values['median']:.4g} ({values['min']:.4g} to {values['max']:.4g})")


def described() -> dict[str, Any]:
    """The machine, the CPU's instruction set and the versions of the other libraries."""
    others = {name: version(name) for name in ("transformers", "ctranslate2")}
    return about() | {"instructions": torch.backends.cpu.get_cpu_capability(), "peers": others}


def write_result(file: Path, part: str, result: dict[str, Any]) -> None:
    """Add or replace a part in the results file."""
    parts = json.loads(file.read_text()) if file.exists() else {}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**parts, part: result}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(answer(main))
