"""Every setting there is: its name, default, bounds and meaning. A run is described here or nowhere.

This is the ground floor. It imports pydantic alone, so that `--help` and every mistake in a config are
answered without waiting for torch.
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
    """A single word stands for a list of one."""
    return [value] if isinstance(value, str) else value


def name(value: Any) -> str:
    """A text that isn't empty. Unlike pydantic's own, it may be the name of a file that isn't UTF-8 (surrogates)."""
    if not isinstance(value, str):
        raise PydanticCustomError("name_type", "Input should be a valid string")
    if not value:
        raise PydanticCustomError("name_empty", "String should have at least 1 character")
    return value


Name = Annotated[str, PlainValidator(name)]
Words = Annotated[list[Name], BeforeValidator(listed)]


class Clash(ValueError):
    """Settings that don't go together; `names` are theirs, dotted, as the table that finds the clash knows them."""

    def __init__(self, message: str, *names: str) -> None:
        super().__init__(message)
        self.names = names


class Settings(BaseModel):
    """A frozen table of settings: unknown names, NaN, and numbers written as text or booleans are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class MLPConfig(Settings):
    """A plain neural network: layers of neurons, each connected to all of the next."""

    kind: Literal["mlp"] = "mlp"
    """the digit network"""
    sizes: Annotated[list[Width], Field(min_length=2, max_length=513)] = [784, 16, 16, 10]
    """neurons in each layer, the input first (784 = 28 x 28 pixels, 10 digits)"""
    activation: Activation = "sigmoid"
    """squashes each neuron's weighted sum; the last layer stays a plain sum"""
    dropout: Probability = 0.0
    """share of hidden activations dropped in training"""
    init: Literal["uniform", "normal", "zero"] = "uniform"
    """uniform: U(-1/sqrt(n), 1/sqrt(n)) with n inputs, PyTorch's own; normal: the lessons' N(0, 1)"""


class LoRAConfig(Settings):
    """Low-rank adapters: the base stays as it is, and beside each target a product of two thin matrices learns."""

    rank: Width = 8
    """width of the thin matrices"""
    alpha: Annotated[float, Field(gt=0)] = 16.0
    """their product is scaled by alpha / rank"""
    targets: Annotated[list[Target], BeforeValidator(listed), Field(min_length=1)] = [
        "query", "key", "value", "out", "up", "down",
    ]  # fmt: skip
    """which matrices of every block get an adapter; up and down are the MLP's two"""


class TransformerSettings(Settings):
    """What a transformer is, whatever its size; the defaults are GPT-2's (Radford et al. 2019)."""

    activation: Activation = "gelu_tanh"
    """between the up- and the down-projection"""
    position: Literal["learned", "sinusoidal", "rotary"] = "learned"
    """how a vector knows its place (sinusoidal: Vaswani et al. 2017; rotary: Su et al. 2021)"""
    norm: Literal["pre", "post"] = "pre"
    """layer norm before each sub-layer, or after the residual sum as in the original transformer"""
    dropout: Probability = 0.0
    """share of the embedding's and of each sub-layer's output dropped in training; attention's patterns stay whole"""
    bias: bool = True
    """biases in the linear layers and layer norms"""
    tied: bool = True
    """the unembedding is the token embedding"""
    init: Literal["gpt2", "normal", "zero"] = "gpt2"
    """gpt2: N(0, 0.02), residual projections scaled down by sqrt(2 n_layer); normal: N(0, 1)"""
    lora: LoRAConfig | None = None
    """train low-rank adapters beside the frozen network of train.start (Hu et al. 2021)"""


class GPTConfig(TransformerSettings):
    """A decoder-only transformer; the defaults are GPT-2 small (Radford et al. 2019)."""

    kind: Literal["gpt"] = "gpt"
    """the text network"""
    n_layer: Depth = 12
    """blocks of attention and MLP"""
    n_head: Width = 12
    """attention heads in each block"""
    n_embd: Width = 768
    """width: numbers in one token's vector"""
    vocab_size: Annotated[int, Field(ge=1, le=2**24)] = 50257
    """tokens it can tell apart; in training it always comes from the tokenizer"""
    context_length: Length = 1024
    """tokens it can look at, at most"""

    @model_validator(mode="after")
    def heads_divide_the_width(self) -> "GPTConfig":
        require_divisible(self.n_embd, self.n_head, self.position)
        return self


class AutoConfig(TransformerSettings):
    """A text network whose sizes, where they are not given, follow from train.start or from the corpus and the time."""

    kind: Literal["auto"] = "auto"
    """blocks and sizes are chosen before training starts"""
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
    """Raises Clash unless the heads share the width evenly, in pairs where positions need pairs."""
    if n_embd % n_head:
        raise Clash(f"n_embd={n_embd} does not divide into n_head={n_head} heads", "n_embd", "n_head")
    if position == "sinusoidal" and n_embd % 2:
        raise Clash(f"sinusoidal positions come in pairs: n_embd={n_embd} must be even", "n_embd", "position")
    if position == "rotary" and (n_embd // n_head) % 2:
        each = f"n_embd / n_head = {n_embd // n_head} must be even"
        raise Clash(f"rotary positions turn pairs: {each}", "n_embd", "n_head", "position")


ModelConfig = Annotated[MLPConfig | GPTConfig | AutoConfig, Field(discriminator="kind")]


class DataConfig(Settings):
    """What the network learns from."""

    path: Annotated[Words, Field(min_length=1, max_length=10_000)]
    """digits: mnist, mnist-5k; text: python-stdlib, shakespeare, or your own files, folders and globs (several of them:
    --data.path a.txt b.txt, or the option repeated; ./shakespeare is a file of that name)"""
    extensions: Words = []
    """of the files that are read in folders, such as ["md", "txt"] (default: every file that is text)"""
    field: Annotated[str, Field(min_length=1)] = "text"
    """which field of each line of a .jsonl file holds the text"""
    tokenizer: Literal["auto", "char", "byte", "bpe", "gpt2"] = "char"
    """what one token is; auto chooses by the size of the corpus"""
    vocab_size: Annotated[int, Field(ge=257, le=2**20)] | None = None
    """how many tokens bpe learns, end-of-text included (default: by the size of the corpus)"""
    val_fraction: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """share of a text that is held out, by whole documents where there are many (0: none)"""
    extend: bool = False
    """give characters that the tokenizer of train.start lacks a number and a row in the embedding"""
    augment: bool = False
    """small random rotations, scalings and shifts of the training digits"""


class OptimConfig(Settings):
    """How a gradient becomes a step."""

    name: Literal["sgd", "rmsprop", "adam", "adamw", "muon"] = "adamw"
    """muon takes the hidden matrices and leaves the rest to adamw"""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """learning rate at its highest"""
    muon_lr: Annotated[float, Field(gt=0)] = 0.02
    """muon's own rate, for the hidden matrices"""
    min_lr: NonNegative = 0.0
    """learning rate at the end of the schedule"""
    warmup_steps: Annotated[int, Field(ge=0, le=2**40)] = 0
    """steps over which the rate rises from zero; one_cycle has its own rise"""
    schedule: Literal["constant", "linear", "cosine", "one_cycle"] = "constant"
    """after warm-up; one_cycle rises over the first 30 % of all steps and falls to min_lr"""
    momentum: Beta = 0.0
    """of sgd, rmsprop and muon"""
    betas: Annotated[list[Beta], Field(min_length=2, max_length=2)] = [0.9, 0.95]
    """of adam and adamw; rmsprop uses the second"""
    weight_decay: NonNegative = 0.0
    """L2: adamw and muon shrink the matrices by lr * weight_decay a step; the others add it to the gradient"""
    l1: NonNegative = 0.0
    """L1: adds l1 * sum of |w| over the matrices to the loss, which drives weights to zero"""
    grad_clip: NonNegative = 0.0
    """longest gradient allowed, in global norm (0: any)"""


class TrainConfig(Settings):
    """How long, how often, and where. Exactly one of steps, epochs and minutes is given."""

    steps: Annotated[int, Field(ge=0, le=2**40)] | None = None
    """updates of the weights"""
    epochs: Annotated[float, Field(gt=0)] | None = None
    """passes over the training split"""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """time budget; becomes a number of steps before the first one"""
    batch_size: Count = 32
    """images or windows in one micro-batch"""
    accumulate: Count = 1
    """micro-batches in one step"""
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    """squared_error is the lessons' cost: sum over outputs of (sigmoid(z) - y)^2, mean over examples"""
    eval_every: Count | None = None
    """steps between evaluations over the whole validation split (default: ten in a run)"""
    save_every: Count | None = None
    """steps between checkpoints (default: at each evaluation)"""
    keep: Annotated[int, Field(ge=0, le=2**40)] = 2
    """newest checkpoints that are kept, besides the best (0: all)"""
    patience: Annotated[int, Field(ge=0, le=2**40)] = 0
    """evaluations without a new best before training stops (0: never)"""
    start: Name | None = None
    """begin from the weights and tokenizer of a run, a checkpoint, or a Hugging Face GPT-2: a folder, or the name gpt2,
    gpt2-medium, gpt2-large or gpt2-xl (a run of that name comes first; openai-community/gpt2 is never a run)"""
    freeze: Words = []
    """parts that do not learn, such as ["embedding", "blocks.0-3"]"""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1337
    """of the weights, the batches and dropout"""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    """auto: cuda, else mps, else cpu"""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """of the matrix products; weights stay float32"""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile; auto is for GPUs and runs of 2,000 steps or epochs that come to as many"""
    threads: Literal["auto"] | Count = "auto"
    """processor threads; tiny networks are fastest on one"""


class LogConfig(Settings):
    """What is written down."""

    every: Count = 10
    """steps between lines of log.jsonl"""
    sample_tokens: Annotated[int, Field(ge=0, le=2**40)] = 120
    """length of the text sample at each evaluation (0: none)"""


class Config(Settings):
    """One run of train.py."""

    model: ModelConfig | None = None
    """left out when train.start brings the network"""
    data: DataConfig
    optim: OptimConfig = OptimConfig()
    train: TrainConfig
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def complete(self) -> "Config":
        given = [name for name in DURATIONS if getattr(self.train, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            rule = "[train] needs exactly one of steps, epochs and minutes"
            raise Clash(f"{rule}, found {found}", *(f"train.{name}" for name in given))
        if self.model is None and self.train.start is None:
            raise Clash("[model] is missing: say which network, or with train.start which run has it")
        if self.train.start is None and getattr(self.model, "lora", None):
            raise Clash("[model.lora] adapts a trained network: say with train.start which", "model.lora")
        return self


DURATIONS = ("steps", "epochs", "minutes")
