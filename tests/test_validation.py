"""What chooses a checkpoint, what stops a run, and the numbers that are told: compared with their definitions."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from torch.nn import functional as F

import train
from data.dataset import IGNORED
from data.digits import DATASETS, Digits
from tests.conftest import Shell
from tests.lessons.helpers_a import digits
from training import checkpoint, examine
from training.advice import Chance
from training.evaluate import Evaluation, evaluate
from training.loss import cross_entropy
from training.prepare import open_data
from training.report import draw_losses
from training.restore import restore
from training.run import read_log
from training.tensorfile import read_tensors
from training.validation import Evaluated, best_of, evaluations, since_best
from training.world import World

SMALL = """
[model]
kind = "mlp"
sizes = [784, 8, 10]
activation = "relu"
[data]
path = "mnist-5k"
[optim]
lr = 0.02
[train]
steps = 40
batch_size = 20
eval_every = 4
keep = 0
threads = 1
[log]
every = 1
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are not timed and curves not drawn."""
    monkeypatch.setattr("training.plan.TRIAL_SECONDS", 0)
    monkeypatch.setattr(train, "draw_curves", lambda folder: None)


class Runs(NamedTuple):
    """Small digit runs in this folder."""

    shell: Shell
    folder: Path
    splits: dict
    """what they read"""

    def train(self, name: str, *words: object) -> str:
        """What a run that succeeds says."""
        code, _, err = self.shell("train.py", "small.toml", "--run", name, *words)
        assert code == 0, err
        return err

    def log(self, name: str) -> list[dict]:
        return read_log(self.folder / "runs" / name)

    def best(self, name: str) -> str:
        return (self.folder / "runs" / name / "checkpoints" / "best").read_text().strip()

    def weights(self, name: str, step: int) -> dict[str, torch.Tensor]:
        return read_tensors(self.folder / f"runs/{name}/checkpoints/step-{step:06d}/model.safetensors", None)


@pytest.fixture
def runs(shell: Shell, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """300 images to train, 100 to validate, 200 to test."""
    (workplace / "small.toml").write_text(SMALL)
    counts = {"train": 300, "val": 100, "test": 200}
    splits = {name: tuple(part[: counts[name]] for part in digits()[name]) for name in counts}
    monkeypatch.setitem(DATASETS, "mnist-5k", lambda val_fraction: splits)
    return Runs(shell, workplace, splits)


def spoil(runs: Runs, split: str) -> None:
    """Give the images of a split wrong labels."""
    images, labels = runs.splits[split]
    runs.splits[split] = images, (labels + 1 + torch.arange(len(labels)) % 8) % 10


@pytest.mark.parametrize("patience", [0, 2])
def test_test_images_choose_nothing(runs, patience):
    words = ["--train.patience", patience, "--optim.lr", "0.1"]
    said = [runs.train("real", *words)]
    spoil(runs, "test")
    said.append(runs.train("spoilt", *words))
    assert runs.best("real") == runs.best("spoilt")
    real, spoilt = runs.log("real"), runs.log("spoilt")
    assert real[:-1] == spoilt[:-1] and real[-1]["of"] == spoilt[-1]["of"]
    assert real[-1]["test_accuracy"] > spoilt[-1]["test_accuracy"]
    assert patience == 0 or real[-2]["step"] < 40
    lines = [[line for line in err.splitlines() if line.startswith(("step", "best", "stopping"))] for err in said]
    assert lines[0] == lines[1]


def test_validation_images_move_no_weight(runs):
    runs.train("real")
    spoil(runs, "val")
    runs.train("spoilt")
    real, spoilt = runs.weights("real", 40), runs.weights("spoilt", 40)
    assert all(torch.equal(real[name], spoilt[name]) for name in real)
    assert runs.log("real")[0] != runs.log("spoilt")[0]
    trained = [[line for line in runs.log(name) if "loss" in line] for name in ("real", "spoilt")]
    assert trained[0] == trained[1]


def planned(monkeypatch: pytest.MonkeyPatch, scores: list[tuple[float, float]]) -> None:
    """Let the evaluations on validation images come to these accuracies and losses; others are as they are."""
    left = iter(scores)

    def given_or_measured(model, data, split, loss, **more):
        if split != "val":
            return evaluate(model, data, split, loss, **more)
        accuracy, found = next(left)
        return Evaluation(found, accuracy, 100, 0.01)

    monkeypatch.setattr(examine, "evaluate", given_or_measured)


RISE_AND_FALL = [(0.1, 2.3), (0.5, 1.5), (0.8, 0.9), (0.7, 0.8), (0.75, 0.7)]


def test_the_best_checkpoint_is_tested_and_its_step_is_named(runs, monkeypatch):
    planned(monkeypatch, RISE_AND_FALL)
    err = runs.train("r", "--train.steps", 16)
    tested = runs.log("r")[-1]
    x, y = runs.splits["test"]
    found = {step: by_hand(runs.weights("r", step), x, y) for step in (8, 16)}
    assert found[8] != pytest.approx(found[16], rel=1e-3)
    loss, accuracy, error = found[8]
    assert (tested["test_loss"], tested["test_accuracy"]) == pytest.approx((loss, accuracy), rel=1e-5)
    assert tested["test_loss_stderr"] == pytest.approx(error, rel=1e-5)
    assert (tested["step"], tested["of"]) == (16, 8)
    assert f"test images, step 8: loss {loss:.4f}, accuracy {accuracy:.2%}" in err
    assert "best: step 8, accuracy 80.00%\n" in err


def by_hand(weights: dict[str, torch.Tensor], images: torch.Tensor, labels: torch.Tensor) -> tuple[float, float, float]:
    """Mean cross-entropy, accuracy and standard error of an MLP of two layers, image by image in float64."""
    w1, b1, w2, b2 = (weights[f"layers.{n}.{kind}"].double() for n in (0, 1) for kind in ("weight", "bias"))
    losses, right = [], 0
    for image, label in zip(images, labels.tolist(), strict=True):
        z = w2 @ torch.relu(w1 @ (image.double() / 255) + b1) + b2
        losses.append(math.log(sum(math.exp(float(score)) for score in z)) - float(z[label]))
        right += int(z.argmax()) == label
    n, mean = len(losses), sum(losses) / len(losses)
    return mean, right / n, math.sqrt(sum((loss - mean) ** 2 for loss in losses) / (n - 1) / n)


def test_accuracy_loss_and_standard_error_are_those_of_every_image(runs):
    err = runs.train("r")
    last = [line for line in runs.log("r") if "val_loss" in line][-1]
    loss, accuracy, error = by_hand(runs.weights("r", 40), *runs.splits["val"])
    assert last["val_accuracy"] == accuracy
    assert (last["val_loss"], last["val_loss_stderr"]) == pytest.approx((loss, error), rel=1e-5)
    assert f"step 40: validation loss {loss:.4f}, accuracy {accuracy:.2%}" in err


@pytest.mark.parametrize("cost", ["cross_entropy", "squared_error"])
def test_text_is_scored_by_cross_entropy_whatever_trains_it(shell, tiny, workplace, poem, cost):
    poem.write_text(poem.read_text() + "A last line that leaves a part of a window.\n")
    code, _, err = shell("train.py", *tiny, "--train.loss", cost)
    assert code == 0
    log = read_log(workplace / "runs/tiny")
    last = [line for line in log if "val_loss" in line][-1]
    restored = restore("tiny", "last")
    data, model = open_data(restored.record.resolved, restored.tokenizer), restored.model.double()
    sums, sizes = [], []
    tokens = torch.from_numpy(data.tokens["val"][:].astype("int64"))
    for first in range(0, len(tokens) - 1, 16):
        window = tokens[first : first + 17]
        probabilities = model(window[None, :-1])[0].softmax(dim=-1)
        sums.append(-sum(math.log(p[t]) for p, t in zip(probabilities.tolist(), window[1:].tolist(), strict=True)))
        sizes.append(len(window) - 1)
    assert sizes[-1] < 16 == sizes[0]
    loss, n = sum(sums) / sum(sizes), len(sums)
    residuals = sum((total - size * loss) ** 2 for total, size in zip(sums, sizes, strict=True))
    assert last["val_loss"] == pytest.approx(loss, rel=1e-5)
    assert last["val_loss_stderr"] == pytest.approx(math.sqrt(residuals * n / (n - 1)) / sum(sizes), rel=1e-4)
    assert last["val_perplexity"] == pytest.approx(math.exp(loss), rel=1e-4)
    assert last["val_bits_per_byte"] == pytest.approx(loss / math.log(2), rel=1e-5)  # a token is a character is a byte
    differs = cost == "squared_error"
    assert ("validation cross-entropy" in err) == ("squared error (validation: cross entropy)" in err) == differs
    assert [last.get("train_cost"), last.get("val_cost")] == ([cost, "cross_entropy"] if differs else [None, None])
    trained = [line["loss"] for line in log if "loss" in line]
    assert (trained[0] < 20 and abs(trained[0] - math.log(28)) > 1) == differs  # 28 sigmoids at one half: 7 in squares


scored = st.lists(
    st.tuples(st.sampled_from([0.1, 0.5, 0.51, 0.9]), st.sampled_from([0.2, 0.3, 1.0, 2.5])), min_size=1, max_size=12
)


def better(one: Evaluated, other: Evaluated) -> bool:
    """By definition: digits by accuracy, and by loss if that is equal; text by loss."""
    if one.accuracy is not None and other.accuracy is not None and one.accuracy != other.accuracy:
        return one.accuracy > other.accuracy
    return one.loss < other.loss


@given(scored, st.booleans())
def test_the_best_is_better_than_all_before_and_not_worse_than_any_after(scores, text):
    seen = [Evaluated(n, loss, None, None if text else acc, None) for n, (acc, loss) in enumerate(scores)]
    best = best_of(seen)
    assert all(better(best, e) for e in seen[: best.step])
    assert not any(better(e, best) for e in seen)
    assert since_best(seen) == len(seen) - 1 - best.step


@pytest.mark.parametrize(
    ("scores", "bests"),
    [
        (RISE_AND_FALL, [0, 4, 8, 8, 8]),
        ([(0.5, 1.0), (0.3, 1.0), (0.4, 1.0), (0.5, 1.1), (0.5, 1.0)], [0, 0, 0, 0, 0]),  # better than the one before
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.9), (0.5, 0.8)], [0, 4, 4, 12]),  # ties
        ([(0.5, 0.1), (0.6, 5.0), (0.4, 0.0)], [0, 4, 4]),
    ],
)
def test_after_each_evaluation_the_best_so_far_is_named_and_kept(runs, monkeypatch, scores, bests):
    planned(monkeypatch, scores)
    named = []

    def noted(learner, run, step, stop):
        examine.examine(learner, run, step, stop)
        found = checkpoint.best(run.checkpoints)
        named.append((found.state.step, (run.checkpoints / "best").read_text()))

    monkeypatch.setattr(train, "examine", noted)
    err = runs.train("r", "--train.steps", 4 * len(scores) - 4, "--train.keep", 1)
    assert named == [(step, f"step-{step:06d}\n") for step in bests]
    lines = [line for line in runs.log("r") if "val_loss" in line]
    assert [(line["best"], line["best_by"]) for line in lines] == [(step, "val_accuracy") for step in bests]
    said = [line for line in err.splitlines() if line.startswith("step ") and "validation" in line]
    for line, step, best in zip(said, range(0, 99, 4), bests, strict=False):
        told = f" (best: step {best}, accuracy {scores[best // 4][0]:.2%})"
        assert line.endswith(told) if best != step else "best" not in line


@pytest.mark.parametrize(
    ("scores", "patience", "last"),
    [
        ([(0.5, 1.0), (0.6, 1.1), (0.7, 1.2), (0.8, 1.3), (0.8, 1.4), (0.7, 0.1), (0.9, 0)], 2, 20),  # accuracy rises
        ([(0.5, 1.0), (0.4, 0.9), (0.4, 0.8), (0.4, 0.7), (0.4, 0.6)], 3, 12),  # loss alone falls
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.8), (0.5, 0.7)], 1, 12),
        ([(0.5, 1.0), (0.3, 1.0), (0.4, 0.9), (0.45, 0.8), (0.46, 0.7)], 3, 12),  # better, but not than the best
    ],
)
def test_patience_counts_evaluations_since_the_best_by_accuracy(runs, monkeypatch, scores, patience, last):
    planned(monkeypatch, [*scores, *[(0.95, 0.01)] * 9])
    steps = 4 * len(scores) - 4
    err = runs.train("r", "--train.steps", steps, "--train.patience", patience)
    lines = [line for line in runs.log("r") if "val_loss" in line]
    assert lines[-1]["step"] == last
    if last < steps or since_best([Evaluated(0, b, None, a, None) for a, b in scores]) >= patience:
        best = max(range(last // 4 + 1), key=lambda n: (scores[n][0], -scores[n][1]))
        told = f"stopping early: no improvement in {patience} evaluations (best: step {4 * best}, accuracy "
        assert told + f"{scores[best][0]:.2%})" in err
    else:
        assert "stopping early" not in err


def test_text_is_chosen_and_stopped_by_loss(shell, tiny, workplace, monkeypatch):
    planned(monkeypatch, [(0.1, 3.0), (0.2, 2.0), (0.9, 2.5), (0.95, 2.1)])
    code, _, err = shell("train.py", *tiny, "--train.steps", 16, "--train.patience", 2)
    assert code == 0 and "no improvement in 2 evaluations (best: step 4, loss 2.0000)" in err
    assert (workplace / "runs/tiny/checkpoints/best").read_text() == "step-000004\n"
    assert [line for line in read_log(workplace / "runs/tiny") if "val_loss" in line][-1]["best_by"] == "val_loss"


def test_the_list_names_the_best_by_its_measure(runs, tiny, monkeypatch):
    planned(monkeypatch, [*RISE_AND_FALL, (0.0, 3.0), (0.9, 2.0), (0.5, 2.5), (0.6, 2.25)])
    runs.train("images", "--train.steps", 16)
    assert runs.shell("train.py", *tiny)[0] == 0
    _, out, _ = runs.shell("sample.py", "--list")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert "best" in rows["run"]
    assert "accuracy 80.00% (step 8)" in rows["images"] and "loss 2.0000 (step 4)" in rows["tiny"]


def test_where_nothing_is_held_out_the_last_is_the_best(runs):
    del runs.splits["val"]
    err = runs.train("r")
    assert not (runs.folder / "runs/r/checkpoints/best").exists() and "best:" not in err
    assert runs.log("r")[-1]["of"] == 40 and "test images, step 40" in err


def test_a_resumed_run_names_the_best_that_its_log_says(runs, monkeypatch):
    planned(monkeypatch, [*RISE_AND_FALL[:4], (0.9, 0.5)])
    runs.train("r", "--train.steps", 16)
    assert runs.best("r") == "step-000016"
    (runs.folder / "runs/r/checkpoints/step-000016/model.safetensors").write_bytes(b"damaged")
    planned(monkeypatch, [(0.7, 0.8), (0.6, 0.7), (0.6, 0.7)])
    code, _, err = runs.shell("train.py", "--resume", "--run", "r", "--train.steps", 20)
    assert code == 0 and runs.best("r") == "step-000008" and "best: step 8, accuracy 80.00%" in err
    assert runs.log("r")[-1]["of"] == 8


def test_the_best_of_an_older_run_is_looked_for_among_the_checkpoints_it_kept(runs, monkeypatch):
    planned(monkeypatch, RISE_AND_FALL)
    runs.train("r", "--train.steps", 16)
    checkpoints = runs.folder / "runs/r/checkpoints"
    for file in (checkpoints / "step-000008").iterdir():
        file.unlink()
    (checkpoints / "step-000008").rmdir()  # it chose by loss, and pruned what is the best by accuracy
    (checkpoints / "best").write_text("step-000016\n")
    planned(monkeypatch, [(0.75, 0.7), (0.6, 0.1)])
    code, _, err = runs.shell("train.py", "--resume", "--run", "r", "--train.steps", 20)
    assert code == 0 and runs.best("r") == "step-000016" and "using the last" not in err


def test_a_log_of_an_earlier_version_is_read():
    lines = [{"step": 0, "val_loss": 2.0, "val_accuracy": 0.1}, {"step": 3, "loss": 1.5, "lr": 0.1, "grad_norm": 1.0}]
    lines += [{"step": 9, "loss": 0.5}, {"stopped": "the loss is nan"}, {"step": 10, "val_loss": 3.0}]
    lines += [{"step": 10, "of": 0, "test_loss": 1.0, "test_accuracy": 0.5}]
    assert evaluations(lines) == [Evaluated(0, 2.0, None, 0.1, None), Evaluated(10, 3.0, None, None, 1.0)]


class Part(World):
    """One of two processes, which gives its share to `parts` in place of the other's."""

    def reduced(self, numbers: list[float], how: str) -> list[float]:
        assert how == "SUM"
        PARTS.append(numbers)
        return numbers


PARTS: list[list[float]] = []


def test_two_processes_compute_the_very_numbers_of_one():
    torch.manual_seed(0)
    model = torch.nn.Linear(784, 10)
    data = Digits({"val": (torch.randint(256, (37, 784), dtype=torch.uint8), torch.randint(10, (37,)))})
    PARTS.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.evaluate.LOGITS_AT_ONCE", 50)  # batches of five images, the last one of two
        for rank, size in ((0, 1), (0, 2), (1, 2)):
            evaluate(model, data, "val", cross_entropy, world=Part(rank, size))
    one, first, second = PARTS
    assert [a + b for a, b in zip(first, second, strict=True)] == one
    assert sum(first[:-1]) > 0 and sum(second[:-1]) > 0 and len(one) == 37 + 1


def test_targets_that_do_not_count_change_neither_loss_nor_its_error():
    class Padded(Digits):
        def in_order(self, split, size):
            for x, y in super().in_order(split, size):
                yield F.pad(x, (0, 0, 0, 3)), F.pad(y, (0, 3), value=IGNORED)

    torch.manual_seed(0)
    model = torch.nn.Linear(784, 10)
    splits = {"val": (torch.randint(256, (20, 784), dtype=torch.uint8), torch.randint(10, (20,)))}
    one, two = (evaluate(model, kind(splits), "val", cross_entropy) for kind in (Digits, Padded))
    assert one is not None and two is not None and one == pytest.approx(two, rel=1e-6) and one.targets == 20


def test_the_error_of_a_single_example_is_unknown():
    data = Digits({"val": (torch.zeros(1, 784, dtype=torch.uint8), torch.tensor([3]))})
    found = evaluate(torch.nn.Linear(784, 10), data, "val", cross_entropy)
    assert found is not None and found.stderr is None and found.targets == 1


@pytest.mark.parametrize("differ", [False, True])
def test_curves_show_the_best_and_give_two_costs_two_axes_with_their_names(differ):
    more = {"train_cost": "squared_error", "val_cost": "cross_entropy"} if differ else {}
    log = [{"step": 0, "val_loss": 3.0, **more}, {"step": 0, "loss": 0.9}, {"step": 5, "loss": 0.7}]
    log += [{"step": 10, "val_loss": 2.0, **more}, {"step": 20, "val_loss": 2.5, **more}]
    figure = Figure()
    draw_losses(figure.subplots(), log)
    left, right = figure.axes[0], figure.axes[-1]
    assert len(figure.axes) == 1 + differ
    assert "squared error" in left.get_ylabel() if differ else left.get_ylabel() == "loss"
    assert not differ or "cross entropy" in right.get_ylabel()
    drawn = {line.get_label(): line.get_xydata().tolist() for axes in figure.axes for line in axes.lines}
    training, validation = (" (squared error)", " (cross entropy)") if differ else ("", "")
    assert drawn == {
        f"training, one batch{training}": [[0, 0.9], [5, 0.7]],
        f"validation, whole split{validation}": [[0, 3.0], [10, 2.0], [20, 2.5]],
        "best: step 10, loss 2.0000": [[10, 2.0]],
    }
    assert [text.get_text() for text in left.get_legend().get_texts()] == list(drawn)
    assert [line.axes for line in left.lines][:1] == [left] and len(right.lines) == (2 if differ else 3)


STUCK = {
    "init zero": (["--model.init", "zero"], "model.init = zero"),
    "a rate of 100": (["--optim.lr", "100"], "optim.lr = 100, above"),
    "a rate of 1e-9": (["--optim.lr", "1e-9"], "optim.lr = 1e-09, below"),
    "ten layers of sigmoid": (
        ["--model.activation", "sigmoid", "--model.sizes", str([784, *[8] * 10, 10])],
        "10 hidden layers of sigmoid",
    ),
}


@pytest.mark.parametrize("cost", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("at_once", [2**16, 7])
def test_chance_level_is_counted_on_the_training_split(runs, monkeypatch, cost, at_once):
    seen: list[Chance] = []
    monkeypatch.setattr(examine, "AT_ONCE", at_once)  # targets in one batch
    monkeypatch.setattr(examine, "chance_level", lambda found, chance, config: seen.append(chance))
    runs.splits["train"] = tuple(part[:20] for part in runs.splits["train"])
    runs.train("r", "--train.steps", 1, "--train.loss", cost)
    shares = [n / 20 for n in Counter(runs.splits["train"][1].tolist()).values()]
    entropy, squares = -sum(p * math.log(p) for p in shares), sum(p * (1 - p) for p in shares)
    loss = entropy if cost == "cross_entropy" else squares
    assert seen[0] == pytest.approx((loss, loss, max(shares), 100))


def test_an_epoch_is_as_many_steps_as_the_training_split_fills(runs, monkeypatch):
    epochs: list[float] = []
    monkeypatch.setattr(examine, "overfitting", lambda found, epoch, chance: epochs.append(epoch))
    runs.train("r", "--train.steps", 1, "--train.accumulate", 3)
    assert set(epochs) == {300 / (20 * 3)}


def test_chance_level_of_text_is_counted_in_both_costs(shell, tiny, poem, monkeypatch):
    seen: list[Chance] = []
    monkeypatch.setattr(examine, "chance_level", lambda found, chance, config: seen.append(chance))
    assert shell("train.py", *tiny, "--train.loss", "squared_error", "--train.steps", 1)[0] == 0
    text = poem.read_text()
    text = text[1 : math.ceil(len(text) * 0.9)]  # all of the training split but its first character
    shares = [n / len(text) for n in Counter(text).values()]
    entropy, squares = -sum(p * math.log(p) for p in shares), sum(p * (1 - p) for p in shares)
    assert seen[0][:3] == pytest.approx((entropy, squares, max(shares)), rel=1e-3)


@pytest.mark.parametrize("cost", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("name", STUCK)
def test_a_digit_network_that_learns_nothing_is_told_why_once_and_never_called_overfitted(runs, name, cost):
    words, cause = STUCK[name]
    err = runs.train("r", *words, "--train.loss", cost, "--train.steps", 120, "--train.eval_every", 60)
    assert err.count("still at chance level") == 1 and f"Likely cause: {cause}" in err and "overfitting" not in err


def test_a_network_that_learns_hears_neither(runs):
    err = runs.train("r", "--train.steps", 120, "--train.eval_every", 40)
    assert "warning" not in err


@pytest.mark.parametrize("rate", ["1", "1e-7"])
def test_a_text_network_that_learns_nothing_is_told_why_and_never_called_overfitted(shell, tiny, rate):
    words = ["--train.steps", 120, "--train.eval_every", 60, "--log.sample_tokens", 0]
    code, _, err = shell("train.py", *tiny, "--optim.lr", rate, *words)
    assert code == 0 and err.count("at chance level") == 1 and "Likely cause: optim.lr = " in err
    assert "overfitting" not in err


def test_a_few_images_learned_by_heart_are_called_overfitting_once_and_after_the_loss_has_risen(runs):
    runs.splits["train"] = tuple(part[:60] for part in runs.splits["train"])
    err = runs.train("r", "--model.sizes", "[784,32,10]", "--train.steps", 160, "--train.eval_every", 20)
    assert err.count("the network is overfitting") == 1 and "chance" not in err, err
    before = err[: err.index("warning: validation loss rose")].splitlines()
    losses = [float(line.split("loss ")[1].split(",")[0]) for line in before if "validation loss" in line]
    assert (losses[-1] + losses[-2]) / 2 > min(losses)
    assert [line["loss"] for line in runs.log("r") if "loss" in line][-1] < 0.1


def test_a_log_line_is_plain_json(runs):
    runs.train("r", "--train.steps", 4)
    for line in (runs.folder / "runs/r/log.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=pytest.fail)
