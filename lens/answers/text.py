"""Page API of a GPT: tokens, logits, queries and keys, logit lens, neighbours."""

from functools import cached_property, lru_cache
from typing import Annotated

import torch
from pydantic import Field

from configs.errors import UserError
from configs.schema import Settings
from data.tokenizer import Tokenizer, decode, first_token
from lens.answers.pack import Answer, Answers, Question, Tallies, packed
from lens.capture import Captured, capture, matrix, values_up
from lens.embedding import cosines, dot_products, nearest
from lens.logits import logit_lens
from lens.seen import labels
from model import GPT
from model.generate import window_start

LONGEST = 20_000  # characters of a prompt, tokens of a text
NEIGHBOURS = 12
ALL_POSITIONS = 300_000  # most logits in an exported page; above it, only those of the last position

Token = Annotated[int, Field(ge=0)]
Text = Annotated[list[Token], Field(min_length=1, max_length=LONGEST)]


class TokensRequest(Settings):
    text: Annotated[str, Field(max_length=LONGEST)]


class PositionRequest(Settings):
    tokens: Text
    position: Annotated[int, Field(ge=0)] | None = None
    """within the context window; None: the last"""


class LayerRequest(Settings):
    tokens: Text
    layer: Annotated[int, Field(ge=0)]


class TokenRequest(Settings):
    token: Token


class TextAnswers(Answers):
    """A GPT with its tokenizer and display name."""

    def __init__(self, model: GPT, tokenizer: Tokenizer, name: str, prompt: str, tallies: Tallies) -> None:
        """`prompt` is shown first."""
        self.model, self.tokenizer, self.name, self.tallies = model.eval(), tokenizer, name, tallies
        self.prompt = prompt[:LONGEST]
        self.captured = lru_cache(maxsize=2)(self.capture)

    @cached_property
    def table(self) -> torch.Tensor:
        """The embedding, (V, C)."""
        return matrix(self.model.embedding.token)

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every token as printable text."""
        return labels(self.tokenizer, range(self.model.config.vocab_size))

    @property
    def questions(self) -> dict[str, Question]:
        return {
            "tokens": Question(TokensRequest, self.tokens),
            "logits": Question(PositionRequest, self.logits),
            "attention": Question(LayerRequest, self.attention),
            "lens": Question(PositionRequest, self.lens),
            "neighbours": Question(TokenRequest, self.neighbours),
        }

    def about(self) -> Answer:
        config = self.model.config
        sizes = ("n_layer", "n_head", "n_embd", "vocab_size", "context_length")
        return {
            "kind": "text",
            "name": self.name,
            "prompt": self.prompt,
            **{size: getattr(config, size) for size in sizes},
            "vocabulary": self.vocabulary,
            "tallies": self.tallies,
            "longest": LONGEST,
        }

    def tokens(self, asked: TokensRequest) -> Answer:
        """The tokens of the text; for an empty text, the token that starts a text."""
        return {"tokens": self.tokenizer.encode(asked.text).tolist() or [first_token(self.tokenizer)]}

    def view(self, tokens: list[int]) -> tuple[int, ...]:
        """The tokens within the context window. Raises UserError for a token outside the vocabulary."""
        if max(tokens) >= self.model.config.vocab_size:
            raise UserError(f"token {max(tokens)} is out of range (0 to {self.model.config.vocab_size - 1})")
        return tuple(tokens[window_start(len(tokens), self.model.config.context_length) :])

    def capture(self, view: tuple[int, ...]) -> Captured:
        """All activations; `captured` caches them for the last two texts."""
        return capture(self.model, torch.tensor([view], device=next(self.model.parameters()).device))

    def logits(self, asked: PositionRequest) -> Answer:
        """The logits of all V tokens at one position, and the decoded text."""
        view = self.view(asked.tokens)
        if asked.position is not None and asked.position >= len(view):
            raise UserError(f"position {asked.position} is out of range (0 to {len(view) - 1})")
        position = len(view) - 1 if asked.position is None else asked.position
        return {
            "start": len(asked.tokens) - len(view),
            "position": position,
            "logits": packed(self.captured(view).logits[0, position]),
            "text": decode(self.tokenizer, asked.tokens),
        }

    @torch.inference_mode()
    def attention(self, asked: LayerRequest) -> Answer:
        """Queries and keys of a layer's heads, (H, T, D) each, and the norms of W_O v, (H, T)."""
        if asked.layer >= len(self.model.blocks):
            raise UserError(f"layer {asked.layer} is out of range (0 to {len(self.model.blocks) - 1})")
        module, x = self.model.blocks[asked.layer].attention, self.captured(self.view(asked.tokens))
        x = x.layers[asked.layer].attention_in
        queries, keys = module.queries_and_keys(x)
        return {
            "queries": packed(queries[0]),
            "keys": packed(keys[0]),
            "lengths": packed(values_up(module, x)[0].norm(dim=-1)),
        }

    def lens(self, asked: PositionRequest) -> Answer:
        """The most likely token at each depth and position with its probability, and each token's loss in bits."""
        view = self.view(asked.tokens)
        captured = self.captured(view)
        best = logit_lens(self.model, captured)
        logprobs = captured.logits[0, :-1].log_softmax(dim=-1).gather(-1, captured.tokens[0, 1:].unsqueeze(-1))
        return {
            "tokens": best.tokens.tolist(),
            "probabilities": packed(best.probabilities),
            "bits": packed(-logprobs.flatten() / torch.log(torch.tensor(2.0))),
        }

    def neighbours(self, asked: TokenRequest) -> Answer:
        """The nearest other tokens by dot product and by cosine similarity."""
        if asked.token >= len(self.table):
            raise UserError(f"token {asked.token} is out of range (0 to {len(self.table) - 1})")
        vector = self.table[asked.token]
        return {
            "dot": nearest(dot_products(self.table, vector), NEIGHBOURS, (asked.token,)),
            "cosine": nearest(cosines(self.table, vector), NEIGHBOURS, (asked.token,)),
        }

    def told(self) -> Answer:
        tokens = self.tokens(TokensRequest(text=self.prompt))["tokens"]
        view = self.view(tokens)
        few = len(view) * self.model.config.vocab_size <= ALL_POSITIONS
        return {
            "about": {**self.about(), "tokens": tokens},
            "logits": {
                position: self.logits(PositionRequest(tokens=tokens, position=position))
                for position in (range(len(view)) if few else [len(view) - 1])
            },
            "attention": {
                layer: self.attention(LayerRequest(tokens=tokens, layer=layer))
                for layer in range(len(self.model.blocks))
            },
            "lens": self.lens(PositionRequest(tokens=tokens)),
            "neighbours": {token: self.neighbours(TokenRequest(token=token)) for token in dict.fromkeys(view)},
        }
