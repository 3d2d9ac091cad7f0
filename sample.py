"""A trained network speaks: a GPT writes text, a digit network reads images."""

if __name__ == "__main__":  # understood before torch is loaded, so that a mistake costs no time
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
    """Say which digit each picture shows."""
    from data.picture import draw, read_image

    images = [read_image(name) for name in request.image]
    introduce(restored)
    for name, image in zip(request.image, images, strict=True):
        print(f"{draw(image)}\n{one_line(name)}: {opinion(outputs(restored, image))}")


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


def main(request: Request) -> None:
    """Restore the run and let it speak."""
    restored = restore(str(request.run), request.checkpoint)
    restored.model.to(choose_device(request.device))
    if request.image:
        read_images(restored, request)
    elif request.test_digits:
        show_test_digits(restored, request)
    else:
        sys.stdout.reconfigure(errors="replace")  # what its encoding lacks is no reason to stop
        speaker = speak.speaker(restored, request)
        introduce(restored, f", seed {request.seed}")
        (speak.converse if request.interactive else speak.write_texts)(speaker)


if __name__ == "__main__":
    sys.exit(answer(partial(main, REQUEST)))
