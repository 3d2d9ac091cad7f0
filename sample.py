"""A trained network speaks: a GPT writes text, a digit network reads images."""

if __name__ == "__main__":  # understood before torch is loaded, so that a mistake costs no time
    import sys

    from configs.errors import result_or_exit
    from training.request import understand

    REQUEST = result_or_exit(lambda: understand(sys.argv[1:]))

import codecs
import sys
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from configs.errors import answer
from configs.schema import DataConfig
from data.seeds import seed_for
from data.tokenizer import Tokenizer, first_token
from model import GPT
from model.generate import generate, window_start
from training.device import choose_device
from training.loss import READINGS
from training.request import Request
from training.restore import Restored, restore


def write_texts(restored: Restored, request: Request) -> None:
    """Print the texts as they grow, each drawn from a seed of its own."""
    tokenizer, model = restored.tokenizer, restored.model
    assert tokenizer is not None and isinstance(model, GPT)
    prompt = tokenizer.encode(request.prompt).tolist() or [first_token(tokenizer)]
    introduce(restored, f", seed {request.seed}")
    unseen = window_start(len(prompt), model.config.context_length)
    if unseen:
        note(f"the prompt's first {unseen} of {len(prompt)} tokens are beyond the network's context and not read")
    for number in range(request.samples):
        if request.samples > 1:
            note(f"--- sample {number + 1} of {request.samples}")
        generator = torch.Generator().manual_seed(seed_for(request.seed, number))
        tokens = generate(model, prompt, request.max_tokens, request.temperature, request.top_k, generator)
        print(request.prompt, end="", flush=True)
        for piece in pieces(tokens, tokenizer):
            print(piece, end="", flush=True)
        print()


def pieces(tokens: Iterator[int], tokenizer: Tokenizer) -> Iterator[str]:
    """Text as soon as its characters are whole; ends at end-of-text."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in tokens:
        if token == tokenizer.end_of_text:
            break
        yield decoder.decode(tokenizer.token_bytes(token))
    yield decoder.decode(b"", final=True)


def read_images(restored: Restored, request: Request) -> None:
    """Say which digit each picture shows."""
    from data.picture import draw, read_image

    images = [read_image(name) for name in request.image]
    introduce(restored)
    for name, image in zip(request.image, images, strict=True):
        print(f"{draw(image)}\n{name}: {opinion(outputs(restored, image))}")


def show_test_digits(restored: Restored, request: Request) -> None:
    """Accuracy on the test images, with some that the network got right and some that it got wrong."""
    from data.digits import open_digits
    from data.picture import draw

    model, path = restored.model_config, restored.record.resolved.data.path
    images, labels = open_digits(DataConfig(path=path), model.sizes, seed=0).splits["test"]
    scores = outputs(restored, images)
    introduce(restored)
    right = scores.argmax(dim=-1) == labels
    print(f"{right.sum():,} of {len(labels):,} test images right: {right.float().mean():.2%}\n")
    half = request.test_digits // 2
    for title, chosen in (
        ("right", right.nonzero()[: request.test_digits - half]),
        ("wrong", (~right).nonzero()[:half]),
    ):
        for index in chosen.flatten().tolist():
            print(f"{draw(images[index])}\n{title}: a {labels[index]}, read as {opinion(scores[index])}\n")


@torch.inference_mode()
def outputs(restored: Restored, images: Tensor) -> Tensor:
    """What the ten output neurons say, between 0 and 1, read as the network's cost reads them."""
    device = next(restored.model.parameters()).device
    return READINGS[restored.record.resolved.train.loss](restored.model(images.to(device))).cpu()


def opinion(scores: Tensor) -> str:
    """The two likeliest digits."""
    best, second = scores.topk(2).indices.tolist()
    return f"{best} ({scores[best]:.1%}), else {second} ({scores[second]:.1%})"


def introduce(restored: Restored, more: str = "") -> None:
    """Say whose words follow."""
    note(f"{restored.folder}, step {restored.checkpoint.state.step:,}{more}")


def note(message: str) -> None:
    """A line on stderr: stdout is for text alone."""
    print(message, file=sys.stderr)


def main(request: Request) -> None:
    """Restore the run and let it speak."""
    restored = restore(str(request.run), request.checkpoint)
    restored.model.to(choose_device(request.device))
    if request.image:
        read_images(restored, request)
    elif request.test_digits:
        show_test_digits(restored, request)
    else:
        write_texts(restored, request)


if __name__ == "__main__":
    sys.exit(answer(partial(main, REQUEST)))
