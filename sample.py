"""Sample from a trained network: a GPT generates text, a digit network classifies images."""

if __name__ == "__main__":  # parsed before torch is imported, so that mistakes are reported at once
    import sys

    from configs.errors import end_quietly_at_interrupt, result_or_exit

    end_quietly_at_interrupt()

    from training.request import understand

    REQUEST = result_or_exit(lambda: understand(sys.argv[1:]))

import sys
from functools import partial

import torch
from torch import Tensor

from configs.errors import answer, one_line
from configs.schema import DataConfig
from training import speak
from training.device import choose_device
from training.loss import READINGS
from training.request import Request
from training.restore import Restored, restore
from training.speak import note


def read_images(restored: Restored, request: Request) -> None:
    """Print each image and the digit that the network takes it for."""
    from data.picture import draw, read_image

    images = [read_image(name) for name in request.image]
    print_source(restored)
    for name, image in zip(request.image, images, strict=True):
        print(f"{draw(image)}\n{one_line(name)}: {prediction(outputs(restored, image))}")


def show_test_digits(restored: Restored, request: Request) -> None:
    """Print the test accuracy and `request.test_digits` test images, half of them misclassified."""
    from data.digits import open_digits
    from data.picture import draw

    model, path = restored.model_config, restored.record.resolved.data.path
    images, labels = open_digits(DataConfig(path=path), model.sizes, seed=0).splits["test"]
    scores = outputs(restored, images)
    print_source(restored)
    correct = scores.argmax(dim=-1) == labels
    print(f"{correct.sum():,} of {len(labels):,} test images correct ({correct.float().mean():.2%})\n")
    half = request.test_digits // 2
    for title, chosen in (
        ("correct", correct.nonzero()[: request.test_digits - half]),
        ("wrong", (~correct).nonzero()[:half]),
    ):
        for index in chosen.flatten().tolist():
            print(f"{draw(images[index])}\n{title}: label {labels[index]}, predicted {prediction(scores[index])}\n")


@torch.inference_mode()
def outputs(restored: Restored, images: Tensor) -> Tensor:
    """Scores (B, 10) in [0, 1]: softmax or sigmoid of the logits, whichever the training loss uses."""
    device = next(restored.model.parameters()).device
    return READINGS[restored.record.resolved.train.loss](restored.model(images.to(device))).cpu()


def prediction(scores: Tensor) -> str:
    """`7 (93.1%), then 9 (4.2%)`: the two highest-scoring digits."""
    best, second = scores.topk(2).indices.tolist()
    return f"{best} ({scores[best]:.1%}), then {second} ({scores[second]:.1%})"


def print_source(restored: Restored, more: str = "") -> None:
    """Print the run and its step to stderr, so that stdout is output only."""
    note(f"{restored.folder}, step {restored.checkpoint.state.step:,}{more}")


def main(request: Request) -> None:
    """Load the run and print what was requested."""
    restored = restore(str(request.run), request.checkpoint)
    restored.model.to(choose_device(request.device))
    if request.image:
        read_images(restored, request)
    elif request.test_digits:
        show_test_digits(restored, request)
    else:
        sys.stdout.reconfigure(errors="replace")  # print ? for characters that the terminal's encoding lacks
        speaker = speak.speaker(restored, request)
        print_source(restored, f", seed {request.seed}")
        (speak.converse if request.interactive else speak.write_texts)(speaker)


if __name__ == "__main__":
    sys.exit(answer(partial(main, REQUEST)))
