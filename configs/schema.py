"""Every setting of a run: its name, default, bounds and help text.

Imports only pydantic, so that `--help` and mistakes in a config are answered without waiting for torch.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

Target = Literal["query", "key", "value", "out", "up", "down"]
Activation = Literal["sigmoid", "relu", "tanh", "gelu", "gelu_tanh"]
Probability = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=2**40)]
NonNegative = Annotated[float, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Width = Annotated[int, Field(ge=1, le=2**20)]
Depth = Annotated[int, Field(ge=1, le=512)]
Length = Annotated[int, Field(ge=2, le=2**24)]


def listed(value: Any) -> Any:
    """ "a" -> ["a"]; anything else is returned unchanged."""
    return [value] if isinstance(value, str) else value


def name(value: Any) -> str:
    """A non-empty string. Unlike pydantic's own, it may contain surrogates: the name of a file that isn't UTF-8."""
    if not isinstance(value, str):
        raise PydanticCustomError("name_type", "Input should be a valid string")
    if not value:
        raise PydanticCustomError("name_empty", "String should have at least 1 character")
    return value


Name = Annotated[str, PlainValidator(name)]
Words = Annotated[list[Name], BeforeValidator(listed)]


class Clash(ValueError):
    """Settings that conflict; `names` are their dotted names, relative to the table that raises it."""

    def __init__(self, message: str, *names: str) -> None:
        super().__init__(message)
        self.names = names


class Settings(BaseModel):
    """A frozen table of settings; rejects unknown names, NaN, and strings or booleans in place of numbers."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class MLPConfig(Settings):
    """A plain neural network: fully connected layers of neurons."""

    kind: Literal["mlp"] = "mlp"
    """a multilayer perceptron, for digits"""
    sizes: Annotated[list[Width], Field(min_length=2, max_length=513)] = [784, 16, 16, 10]
    """neurons per layer, input first (784 = 28 x 28 pixels, 10 digits)"""
    activation: Activation = "sigmoid"
    """applied to each neuron's weighted sum, except in the last layer"""
    dropout: Probability = 0.0
    """fraction of hidden activations dropped in training"""
    init: Literal["uniform", "normal", "zero"] = "uniform"
    """uniform: PyTorch's default, U(-1/sqrt(n), 1/sqrt(n)) for n inputs; normal: the lessons' N(0, 1)"""


class LoRAConfig(Settings):
    """Low-rank adapters: the base is frozen, and each target matrix gets a trainable product of two thin matrices."""

    rank: Width = 8
    """rank of the adapters: the inner dimension of the two thin matrices"""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """the product of the two is scaled by alpha / rank"""
    targets: Annotated[list[Target], BeforeValidator(listed), Field(min_length=1)] = [
        "query", "key", "value", "out", "up", "down",
    ]  # fmt: skip
    """matrices that get an adapter, in every block; up and down are the MLP's"""


class TransformerSettings(Settings):
    """A transformer's settings other than its size; the defaults are GPT-2's (Radford et al. 2019)."""

    activation: Activation = "gelu_tanh"
    """between the up- and the down-projection"""
    position: Literal["learned", "sinusoidal", "rotary"] = "learned"
    """position encoding (sinusoidal: Vaswani et al. 2017; rotary: Su et al. 2021)"""
    norm: Literal["pre", "post"] = "pre"
    """layer norm before each sub-layer, or after the residual sum as in the original transformer"""
    dropout: Probability = 0.0
    """fraction of the embedding's and each sub-layer's output dropped in training; not applied to attention weights"""
    bias: bool = True
    """biases in the linear layers and layer norms"""
    tied: bool = True
    """use the token embedding as the unembedding too"""
    init: Literal["gpt2", "normal", "zero"] = "gpt2"
    """gpt2: N(0, 0.02), residual projections scaled down by sqrt(2 n_layer); normal: N(0, 1)"""
    lora: LoRAConfig | None = None
    """train low-rank adapters beside the frozen network of train.start (Hu et al. 2021)"""


class GPTConfig(TransformerSettings):
    """A decoder-only transformer; the defaults are GPT-2 small (Radford et al. 2019)."""

    kind: Literal["gpt"] = "gpt"
    """a transformer, for text"""
    n_layer: Depth = 12
    """blocks, each with attention and an MLP"""
    n_head: Width = 12
    """attention heads per block"""
    n_embd: Width = 768
    """width: dimensions of each token's vector"""
    vocab_size: Annotated[int, Field(ge=1, le=2**24)] = 50257
    """tokens in the vocabulary; in training always set by the tokenizer"""
    context_length: Length = 1024
    """maximum number of tokens it attends to"""

    @model_validator(mode="after")
    def heads_divide_the_width(self) -> "GPTConfig":
        require_divisible(self.n_embd, self.n_head, self.position)
        return self


class AutoConfig(TransformerSettings):
    """A text network; sizes that are not given come from train.start, or from the corpus and the training time."""

    kind: Literal["auto"] = "auto"
    """sizes are chosen before training starts"""
    n_layer: Depth | None = None
    n_head: Width | None = None
    n_embd: Width | None = None
    context_length: Length | None = None

    @model_validator(mode="after")
    def heads_divide_the_width(self) -> "AutoConfig":
        if self.n_embd is not None:
            require_divisible(self.n_embd, self.n_head or 1, self.position)
        return self


def require_divisible(n_embd: int, n_head: int, position: str) -> None:
    """Raises Clash unless n_head divides n_embd and position encodings that work on pairs get an even width."""
    if n_embd % n_head:
        raise Clash(f"n_embd={n_embd} is not divisible by n_head={n_head}", "n_embd", "n_head")
    if position == "sinusoidal" and n_embd % 2:
        raise Clash(f"sinusoidal positions need an even width, got n_embd={n_embd}", "n_embd", "position")
    if position == "rotary" and (n_embd // n_head) % 2:
        got = f"n_embd / n_head = {n_embd // n_head}"
        raise Clash(f"rotary positions need an even head size, got {got}", "n_embd", "n_head", "position")


ModelConfig = Annotated[MLPConfig | GPTConfig | AutoConfig, Field(discriminator="kind")]


class DataConfig(Settings):
    """The training data."""

    path: Annotated[Words, Field(min_length=1, max_length=10_000)]
    """digits: mnist, mnist-5k; text: python-stdlib, shakespeare, or your own files, folders and globs, one or more:
    --data.path a.txt b.txt (a file named shakespeare: ./shakespeare)"""
    extensions: Words = []
    """read only these files in folders, such as ["md", "txt"] (default: all text files)"""
    field: Annotated[str, Field(min_length=1)] = "text"
    """field with the text, in each line of a .jsonl file"""
    tokenizer: Literal["auto", "char", "byte", "bpe", "gpt2"] = "char"
    """auto: chosen by corpus size"""
    vocab_size: Annotated[int, Field(ge=257, le=2**20)] | None = None
    """vocabulary size for bpe, including end-of-text (default: chosen by corpus size)"""
    val_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """fraction of the data held out for validation (0: none); text with many documents is split between documents"""
    extend: bool = False
    """add characters that train.start's tokenizer lacks"""
    augment: bool = False
    """randomly rotate, scale and shift the training digits a little"""


class OptimConfig(Settings):
    """The optimiser and its learning rate schedule."""

    name: Literal["sgd", "rmsprop", "adam", "adamw", "muon"] = "adamw"
    """muon: for the hidden matrices, with adamw for the rest"""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """peak learning rate"""
    muon_lr: Annotated[float, Field(gt=0)] = 0.02
    """peak learning rate for the hidden matrices, with muon"""
    min_lr: NonNegative = 0.0
    """final learning rate"""
    warmup_steps: Annotated[int, Field(ge=0, le=2**40)] = 0
    """steps of linear warm-up from zero; one_cycle has a warm-up of its own"""
    schedule: Literal["constant", "linear", "cosine", "one_cycle"] = "constant"
    """learning rate after warm-up; one_cycle rises for the first 30 % of all steps, then falls to min_lr"""
    momentum: Beta = 0.0
    """for sgd, rmsprop and muon"""
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    """for adam and adamw; rmsprop uses only the second"""
    weight_decay: NonNegative = 0.0
    """L2: adamw and muon shrink the matrices by lr * weight_decay per step; the others add it to the gradient"""
    l1: NonNegative = 0.0
    """L1: adds l1 * sum(|w|) over the matrices to the loss, which drives weights to zero"""
    grad_clip: NonNegative = 0.0
    """clip the global gradient norm to this (0: off)"""


class TrainConfig(Settings):
    """How long to train and on what; exactly one of steps, epochs and minutes must be given."""

    steps: Annotated[int, Field(ge=0, le=2**40)] | None = None
    """training length in weight updates"""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """training length in passes over the training split"""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """training length in minutes, converted to steps before training starts"""
    batch_size: Count = 32
    """images or text windows per micro-batch"""
    accumulate: Count = 1
    """micro-batches per step"""
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    """squared_error: the lessons' cost, the sum over outputs of (sigmoid(z) - y)^2, averaged over examples"""
    eval_every: Count | None = None
    """steps between evaluations on the validation split (default: ten per run)"""
    save_every: Count | None = None
    """steps between checkpoints (default: at each evaluation)"""
    keep: Annotated[int, Field(ge=0, le=2**40)] = 2
    """recent checkpoints to keep, besides the best (0: all)"""
    patience: Annotated[int, Field(ge=0, le=2**40)] = 0
    """stop after this many evaluations without improvement (0: never)"""
    start: Name | None = None
    """start from the weights and tokenizer of a run, a checkpoint, or a Hugging Face GPT-2: its folder, or gpt2,
    gpt2-medium, gpt2-large or gpt2-xl (openai-community/gpt2 if a run is named gpt2)"""
    freeze: Words = []
    """parts to freeze, such as ["embedding", "blocks.0-3"]"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1337
    """random seed for weights, batches and dropout"""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """auto: cuda, else mps, else cpu"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """precision of matrix products; weights stay float32"""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto: on for GPU runs of 2,000 steps or more"""
    threads: Literal["auto"] | Count = "auto"
    """CPU threads; tiny networks are fastest with 1"""


class LogConfig(Settings):
    """What training logs."""

    every: Count = 10
    """steps between lines of log.jsonl"""
    sample_tokens: Annotated[int, Field(ge=0, le=2**40)] = 120
    """tokens in the text sample at each evaluation (0: no sample)"""


class Config(Settings):
    """One run of train.py."""

    model: ModelConfig | None = None
    """may be omitted with train.start"""
    data: DataConfig
    optim: OptimConfig = OptimConfig()
    train: TrainConfig
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def complete(self) -> "Config":
        given = [name for name in DURATIONS if getattr(self.train, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            raise Clash(
                f"[train] needs exactly one of steps, epochs and minutes, got {got}",
                *(f"train.{name}" for name in given),
            )
        if self.model is None and self.train.start is None:
            raise Clash("[model] is missing: add it, or set train.start to a trained network")
        if self.train.start is None and getattr(self.model, "lora", None):
            raise Clash("[model.lora] needs a trained network: set train.start", "model.lora")
        return self


DURATIONS = ("steps", "epochs", "minutes")
