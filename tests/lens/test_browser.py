"""The live page in a real browser: what a person does with it, and that its own computing is the network's."""

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from data.picture import centre
from data.tokenizer import decode
from lens.answers.digits import AtStep, DigitAnswers
from lens.answers.text import TextAnswers
from lens.capture import STAGES, attention, capture
from lens.logits import logit_lens
from lens.request import understand
from lens.standalone import standalone
from lens.views import look
from lens.views.parameters import tallies
from model import GPT, GPTConfig
from model.generate import Sampling, distribution
from tests.conftest import gpt2_vocabulary
from tests.lens.test_page import PROMPT, digit_answers, text_answers
from tests.needs import chromium, require

if TYPE_CHECKING:
    from playwright.sync_api import Page

SAME = """
[model]
kind = "gpt"
n_layer = 2
n_head = 2
n_embd = 16
context_length = 48
[data]
path = "any.txt"
tokenizer = "byte"
[train]
steps = 1
"""  # the network of text_answers
MARGIN = 16.8  # pixels beside the grid of attention, where every token is one letter
NO_NAMES = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # chromium looks nothing up
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", NO_NAMES]


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """Debian's chromium."""
    playwright = require("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium(), args=SWITCHES)
        yield browser
        browser.close()


def served(answers) -> Iterator[str]:
    """The address of a page that is being served."""
    uvicorn = require("uvicorn")
    from lens.server import listen, page_server

    listener = listen(None)
    server = uvicorn.Server(uvicorn.Config(page_server(answers, "secret"), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/secret/"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture(scope="module")
def answers():
    return text_answers()


@pytest.fixture(scope="module")
def text_address(answers) -> Iterator[str]:
    yield from served(answers)


@pytest.fixture(scope="module")
def long_address() -> Iterator[str]:
    """The page of twelve layers with twelve heads, GPT-2's numbers, and a long context."""
    yield from served(text_answers("short", n_layer=12, n_head=12, n_embd=48, context_length=256))


@pytest.fixture(scope="module")
def digit_address() -> Iterator[str]:
    yield from served(digit_answers())


@pytest.fixture
def open_page(browser) -> Iterator[Callable[..., "Page"]]:
    """Open an address; at the end nothing may have gone wrong, and nothing been asked of anyone else."""
    contexts, complaints = [], []
    refused = "Failed to load resource: the server responded with a status of 400"  # what the page itself says in words

    def complain(message) -> None:
        if message.type != "log" and not message.text.startswith(refused):
            complaints.append(message.text)

    def open_it(address: str, scheme: str = "light", width: int = 1280, touch: bool = False) -> "Page":
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}, has_touch=touch)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", complain)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"a dialog: {dialog.message}"))
        page.on(
            "request",
            lambda r: None if r.url.startswith((address, "data:")) else complaints.append(f"asked for {r.url}"),
        )
        page.goto(address)
        page.wait_for_selector("#parameters")
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert not complaints


def when(page: "Page", true: str) -> None:
    """Wait until an expression in the page is true."""
    for _ in range(200):
        if page.evaluate(true):
            return
        page.wait_for_timeout(25)
    raise AssertionError(f"never true: {true}")


def ready(page: "Page", layers: int = 2) -> None:
    """All heads, the logit lens and the neighbours have come."""
    there = "document.querySelectorAll('.lens td').length > 0 && !document.querySelector('.stale')"
    when(page, f"page.attention.layers.size === {layers} && {there}")


def test_the_sliders_draw_from_the_distribution_that_sampling_draws_from(open_page, text_address):
    page = open_page(text_address)
    generator = torch.Generator().manual_seed(0)
    settings = [
        (temperature, top_k, top_p)
        for temperature in (0.0, 0.05, 0.7, 1.0, 3.0)
        for top_k in (1, 4, 60)
        for top_p in (0.01, 0.5, 0.95, 1.0)
    ]
    for logits in (4 * torch.randn(60, generator=generator), torch.tensor([2.0, 3, 3, 1] * 15), torch.zeros(60)):
        found = page.evaluate(
            """async ([logits, settings]) => {
                const { ranked, distribution } = await import(`${location.href}sampling.js`);
                const order = ranked(logits);
                return settings.map(([temperature, topK, topP]) => {
                    const { chances } = distribution(logits, order, { temperature, topK, topP });
                    const all = new Array(logits.length).fill(0);
                    chances.forEach((chance, rank) => { all[order[rank]] = chance; });
                    return all;
                });
            }""",
            [logits.tolist(), settings],
        )
        for (temperature, top_k, top_p), chances in zip(settings, found, strict=True):
            expected = distribution(logits, Sampling(temperature, top_k, top_p))
            torch.testing.assert_close(
                torch.tensor(chances, dtype=torch.float32), expected, msg=f"{temperature} {top_k} {top_p}"
            )


def test_the_pages_attention_is_the_networks_at_all_four_stages(open_page, text_address, answers):
    page = open_page(text_address)
    ready(page)
    layers = capture(answers.model, torch.tensor([list(PROMPT.encode())])).layers
    for layer, seen in enumerate(layers):
        expected = attention(answers.model.blocks[layer].attention, seen.attention_in)
        for head in range(2):
            for stage in STAGES:
                values = page.evaluate(
                    "([layer, head, stage]) => Array.from(page.attention.layers.get(layer)[head].stages[stage],"
                    " (value) => value === -Infinity ? null : value)",
                    [layer, head, stage],
                )
                mine = torch.tensor([-torch.inf if value is None else value for value in values])
                torch.testing.assert_close(mine.view(len(PROMPT), -1), getattr(expected, stage)[0, head])


def test_a_text_is_typed_and_its_tokens_are_text_and_never_html(open_page, text_address):
    page = open_page(text_address)
    page.fill("#prompt", "<script>alert(1)</script><img onerror=alert(2)>")
    when(page, "document.querySelectorAll('.chips button').length === 47")
    ready(page)
    assert page.locator(".chips button").first.text_content() == "<"
    assert page.locator("img, .chips script, .bars script, .lens script").count() == 0
    made = "async (text) => (await import(`${location.href}dom.js`)).make('p', {}, text).childElementCount"
    assert page.evaluate(made, "<img src=data:,> a token of many bytes") == 0
    page.fill("#prompt", "é\n")
    when(page, "document.querySelectorAll('.chips button').length === 3")
    assert page.locator(".chips button").last.text_content() == "↵"


def test_the_sliders_act_at_once_and_by_keyboard(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    shares = lambda: page.locator("#next .share").all_text_contents()  # noqa: E731
    before = shares()
    temperature, top_k, top_p = (page.locator("#next input[type=range]").nth(n) for n in range(3))
    temperature.fill("0")
    assert shares()[0] == "100 %" and set(shares()[1:]) == {"0 %"}
    temperature.fill("1")
    assert shares() == before
    top_k.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert top_k.get_attribute("aria-valuetext") == "50"
    top_k.fill("0")
    assert shares()[:2] == ["100 %", "cut by top-k"]
    top_k.fill("99")
    top_p.fill("0.01")
    assert "cut by top-p" in shares()


def test_a_token_is_chosen_and_the_text_goes_on_from_there(open_page, text_address, answers):
    page = open_page(text_address)
    ready(page)
    row = page.locator("#next .bars button").nth(2)
    token = int(row.get_attribute("data-token"))
    row.click()
    when(page, f"page.state.tokens.length === {len(PROMPT) + 1}")
    assert page.evaluate("page.state.tokens.at(-1)") == token
    when(page, "page.bars.chances().length === 257")
    expected = answers.model(torch.tensor([[*PROMPT.encode(), token]]))[0, -1].softmax(dim=-1)
    found = dict(page.evaluate("page.bars.chances()"))
    torch.testing.assert_close(torch.tensor([found[n] for n in range(257)]), expected)
    page.get_by_role("button", name="Sample a token").click()
    when(page, f"page.state.tokens.length === {len(PROMPT) + 2}")
    page.get_by_role("button", name="Remove last").click()
    when(page, f"page.state.tokens.length === {len(PROMPT) + 1}")
    assert page.evaluate("page.state.tokens") == [*PROMPT.encode(), token]
    page.get_by_role("button", name="Sample 40").click()
    when(page, f"page.state.tokens.length > {len(PROMPT) + 2}")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_timeout(200)
    length = page.evaluate("page.state.tokens.length")
    page.wait_for_timeout(200)
    assert page.evaluate("page.state.tokens.length") == length < len(PROMPT) + 41


def test_a_token_chosen_after_an_inner_place_comes_there_and_what_followed_is_dropped(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    page.locator(".chips button").nth(2).click()
    when(page, "document.querySelector('#next .note').textContent === 'after a:'")
    row = page.locator("#next .bars button").first
    token = int(row.get_attribute("data-token"))
    row.click()
    when(page, "page.state.tokens.length === 4")
    assert page.evaluate("page.state.tokens") == [*PROMPT.encode()[:3], token]


def test_what_is_typed_while_a_token_is_drawn_is_what_stays(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    page.evaluate(
        """() => { const swift = window.fetch;
            window.fetch = async (...asked) => {
                await new Promise((answered) => setTimeout(answered, 1500));
                return swift(...asked);
            }; }"""
    )
    page.get_by_role("button", name="Sample a token").click()
    page.locator("#prompt").press("End")
    page.locator("#prompt").press_sequentially("xy", delay=10)
    when(page, f"page.state.tokens.length === {len(PROMPT) + 2}")
    assert page.input_value("#prompt") == PROMPT + "xy" == bytes(page.evaluate("page.state.tokens")).decode()


def test_tokens_are_chosen_one_after_the_other_by_keyboard(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    page.locator("#next .bars button").nth(2).focus()
    for n in (1, 2, 3):
        page.keyboard.press("Enter")
        when(page, f"page.state.tokens.length === {len(PROMPT) + n}")
        when(page, "document.activeElement === document.querySelectorAll('#next .bars button')[2]")


def test_a_text_beyond_the_context_is_seen_from_its_end(open_page, text_address):
    page = open_page(text_address)
    page.fill("#prompt", "a" * 60)
    when(page, "page.state.tokens.length === 60")
    assert "60 tokens; the network sees only the last 36" in page.locator("#text .note").text_content()
    assert page.locator(".chips button").count() == 36


def test_a_head_is_clicked_a_cell_explained_and_the_stages_are_gone_through(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    page.get_by_role("button", name="layer 1, head 1").click()
    assert page.get_by_role("button", name="layer 1, head 1").get_attribute("aria-pressed") == "true"
    canvas, looks = page.locator("#attention canvas.picture"), set()
    for stage in ("scores", "masked", "× value", "softmax"):
        page.get_by_text(stage, exact=True).click()
        looks.add(canvas.screenshot())
    page.get_by_text("papers: one row per query").click()
    looks.add(canvas.screenshot())
    page.get_by_text("lines", exact=True).click()
    looks.add(canvas.screenshot())
    assert len(looks) == 6
    page.get_by_text("grid", exact=True).click()
    canvas.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    place = page.evaluate("[page.attention.state.query, page.attention.state.key]")
    assert place == [len(PROMPT) - 2, 1]
    share = page.evaluate("page.attention.layers.get(1)[1].stages.pattern.at(-31 * 2 + 1)")
    assert f"weight after softmax is {share:.3f}" in page.locator("#cell").text_content()
    box = canvas.bounding_box()
    cell = (box["width"] - MARGIN - 4) / len(PROMPT)
    for layout, pair in (("papers: one row per query", [5, 3]), ("lesson: one column per query", [3, 5])):
        page.get_by_text(layout).click()
        page.mouse.move(box["x"] + MARGIN + 3.5 * cell, box["y"] + MARGIN + 5.5 * cell)
        assert page.evaluate("[page.attention.state.query, page.attention.state.key]") == pair
    page.get_by_role("button", name="layer 1, head 1").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "layer 0, head 1"


def test_later_words_are_hidden_below_the_diagonal_where_a_query_is_a_column_by_day_and_by_night(
    open_page, text_address
):
    page = open_page(text_address)
    ready(page)
    page.get_by_text("masked", exact=True).click()
    corners = """([margin, T]) => {
        const canvas = document.querySelector('canvas.picture'), cell = (canvas.width - margin - 4) / T;
        const seen = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
        seen.drawImage(canvas, 0, 0);
        return [[T - 0.5, 0.5], [0.5, T - 0.5]].map(([x, y]) => Array.from(
            seen.getImageData(margin + x * cell, margin + y * cell, 1, 1).data.slice(0, 3)));
    }"""
    for scheme, hidden in (("light", [0xE9, 0xEA, 0xE6]), ("dark", [0x24, 0x2A, 0x34])):
        page.emulate_media(color_scheme=scheme)
        page.get_by_text("lesson: one column per query").click()
        right, left = page.evaluate(corners, [MARGIN, len(PROMPT)])
        assert left == hidden != right
        page.get_by_text("papers: one row per query").click()
        right, left = page.evaluate(corners, [MARGIN, len(PROMPT)])
        assert right == hidden != left


THUMBNAILS = """() => [...document.querySelectorAll('.head canvas')].map((canvas) => {
    const small = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
    small.drawImage(canvas, 0, 0);
    return [...small.getImageData(0, canvas.height - 1, 1, 1).data].join(' ');
})"""  # the colour of the lower left corner: a later key, whose share is 0, has the colour of the paper
CLEAR, PAPER, NIGHT = "0 0 0 0", "255 255 255 255", "26 31 40 255"
STALE = "[...document.querySelectorAll('section.stale')].map((card) => card.id).sort()"


def test_beyond_128_tokens_no_head_shows_an_earlier_text(open_page, long_address):
    page = open_page(long_address)
    when(page, "page.attention.layers.size === 12")
    thumbnails_become(page, [PAPER] * 144)
    note = page.get_by_text("Beyond 128 tokens, a head is computed only when you select it.")
    assert note.is_hidden()
    page.fill("#prompt", "x yz" * 40)
    when(page, "page.state.tokens.length === 160 && page.attention.layers.size === 1")
    thumbnails_become(page, [PAPER] + [CLEAR] * 143)
    assert note.is_visible()
    page.get_by_role("button", name="layer 3, head 1", exact=True).click()
    when(page, "page.attention.layers.size === 2")
    painted = [PAPER if n in (0, 3 * 12 + 1) else CLEAR for n in range(144)]
    thumbnails_become(page, painted)
    page.emulate_media(color_scheme="dark")
    thumbnails_become(page, [NIGHT if colour == PAPER else CLEAR for colour in painted])
    page.emulate_media(color_scheme="light")
    page.fill("#prompt", "short again")
    when(page, "page.attention.layers.size === 12")
    thumbnails_become(page, [PAPER] * 144)
    assert page.locator(".head .stale").count() == 0
    assert note.is_hidden()


def thumbnails_become(page: "Page", colours: list[str]) -> None:
    """Wait until the corners of all thumbnails have these colours: painting follows the event that asks for it."""
    when(page, f"JSON.stringify(({THUMBNAILS})()) === {json.dumps(json.dumps(colours, separators=(',', ':')))}")


def test_heads_that_are_not_computed_yet_are_dimmed(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    assert page.locator(".head .stale").count() == 0
    slow(page, '"layer":1')
    page.fill("#prompt", "another text")
    when(page, "page.state.tokens.length === 12")
    when(page, "document.querySelectorAll('.head .stale').length === 2")
    when(page, "document.querySelectorAll('.head .stale').length === 0")
    assert page.evaluate(STALE) == []


def slow(page: "Page", part: str) -> None:
    """Let answers to questions that contain this text come 300 ms later."""
    page.evaluate(
        """(part) => { const swift = window.fetch;
            window.fetch = async (address, asked) => {
                if (asked?.body?.includes(part)) await new Promise((answered) => setTimeout(answered, 300));
                return swift(address, asked);
            }; }""",
        part,
    )


def cut_off(page: "Page") -> None:
    """Let no question reach the server, until `reconnect()` is called in the page."""
    page.evaluate(
        """() => { const working = window.fetch;
            window.fetch = () => Promise.reject(new TypeError('offline'));
            window.reconnect = () => { window.fetch = working; }; }"""
    )


def in_window(page: "Page", selector: str) -> bool:
    """Whether the element lies wholly inside the part of the page that is seen."""
    box = page.locator(selector).bounding_box()
    return bool(box) and box["y"] >= 0 and box["y"] + box["height"] <= page.evaluate("innerHeight")


def test_an_error_is_seen_wherever_the_page_is_and_what_it_leaves_unanswered_is_dimmed(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    cut_off(page)
    page.evaluate("scrollTo(0, 600)")
    page.evaluate("document.activeElement.blur()")
    page.locator("#next .bars button").first.click()
    page.wait_for_selector("#trouble:not([hidden])")
    assert page.evaluate("scrollY") > 200 and in_window(page, "#trouble")
    assert page.locator("#trouble").get_attribute("role") == "alert"
    assert "is explore.py still running?" in page.locator("#trouble").text_content()
    assert page.evaluate(STALE) == ["attention", "lens", "neighbours", "next"]
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    assert in_window(page, "#trouble")
    page.evaluate("reconnect()")
    page.locator("#next .bars button").first.click()
    when(page, f"page.state.tokens.length === {len(PROMPT) + 1} && {STALE}.length === 0")
    assert page.locator("#trouble").is_hidden()


def test_what_is_typed_without_an_answer_stays_and_nothing_is_appended_to_the_text_before(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    cut_off(page)
    page.fill("#prompt", "something else")
    page.wait_for_selector("#trouble:not([hidden])")
    page.evaluate("reconnect()")
    page.locator("#next .bars button").first.click()
    page.get_by_role("button", name="Remove last").click()
    page.locator(".chips button").nth(2).click()
    page.wait_for_timeout(100)
    assert page.input_value("#prompt") == "something else" and page.locator("#trouble").is_visible()
    assert page.evaluate(STALE) == ["attention", "lens", "neighbours", "next"]
    page.locator("#prompt").press("End")
    page.keyboard.press("!")
    when(page, f"page.state.tokens.length === 15 && {STALE}.length === 0")
    assert page.locator("#trouble").is_hidden()


def test_an_error_about_a_question_that_is_no_longer_asked_is_not_shown(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    slow(page, "999")
    page.evaluate("void page.show([999])")
    page.fill("#prompt", "new")
    when(page, "page.state.tokens.length === 3")
    page.wait_for_timeout(400)
    assert page.locator("#trouble").is_hidden() and page.evaluate(STALE) == []


def test_a_checkpoint_that_cannot_be_read_dims_what_belongs_to_another(open_page, digit_address):
    page = open_page(digit_address)
    when(page, "page.state.computed !== null")
    cut_off(page)
    page.get_by_role("button", name="Play").click()
    page.wait_for_selector("#trouble:not([hidden])")
    page.wait_for_timeout(700)
    assert page.locator("#training output").text_content() == "10"  # it stopped there
    assert page.evaluate(STALE) == ["chosen", "network", "outputs"]
    assert in_window(page, "#trouble")
    page.locator("#training input").fill("1")  # step 20 was read before
    when(page, f"{STALE}.length === 0")
    assert page.locator("#trouble").is_hidden()
    page.evaluate("reconnect()")
    page.locator("#training input").fill("0")
    when(page, f"{STALE}.length === 0 && page.state.network !== null")


def test_a_first_prompt_with_carriage_returns_is_gone_on_from(open_page):
    for address in served(text_answers("a\r\nb")):
        page = open_page(address)
        ready(page)
        assert page.evaluate("page.state.tokens") == list(b"a\r\nb")
        page.locator("#next .bars button").first.click()
        when(page, "page.state.tokens.length === 5")
        page.keyboard.press("Control+z")
        when(page, "page.state.tokens.length === 4")
        ready(page)  # nothing is asked of a server that is gone


def text_is(page: "Page", text: str) -> None:
    """Wait until the page shows this text, in the field and as tokens."""
    when(page, f"page.state.tokens.length === {len(text)} && document.getElementById('prompt').value === {text!r}")


def test_a_cut_of_the_text_is_undone(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    undo = page.get_by_role("button", name="Undo")
    assert undo.is_disabled()
    for how in ("button", "Control+z", "Control+z in the field"):
        page.locator(".chips button").nth(2).click()
        when(page, "document.querySelector('#next .note').textContent === 'after a:'")
        assert page.get_by_text("Appending here replaces the 28 tokens that follow; Undo restores them.").is_visible()
        page.locator("#next .bars button").first.click()
        when(page, "page.state.tokens.length === 4")
        if how.endswith("field"):
            page.locator("#prompt").focus()
        undo.click() if how == "button" else page.keyboard.press("Control+z")
        text_is(page, PROMPT)
        when(page, "document.querySelector('#next .note').textContent === 'after a:'")  # the place that was in view
        assert undo.is_disabled()
    page.locator(".chips button").last.click()
    when(page, f"document.querySelector('#next .note').textContent === 'after {PROMPT[-1]}:'")
    assert page.get_by_text("Appending here replaces").count() == 0


def test_each_change_is_undone_in_turn_and_typing_by_the_field_itself(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    page.fill("#prompt", "ab")
    text_is(page, "ab")
    page.get_by_role("button", name="Sample 40").click()
    when(page, "page.state.tokens.length > 4")
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Undo").click()  # all that was drawn at once
    text_is(page, "ab")
    page.get_by_role("button", name="Remove last").click()
    text_is(page, "a")
    page.locator("#prompt").press("End")
    page.keyboard.type("xy")
    text_is(page, "axy")
    page.keyboard.press("Control+z")  # chromium's own
    when(page, "page.state.tokens.length < 3")
    text_is(page, "a")
    page.keyboard.press("Control+Shift+z")  # which it can do again, as only its own
    text_is(page, "axy")
    page.keyboard.press("Control+z")
    text_is(page, "a")
    page.keyboard.press("Control+z")
    text_is(page, "ab")
    page.keyboard.press("Control+z")
    text_is(page, PROMPT)
    assert page.get_by_role("button", name="Undo").is_disabled()


def test_the_centre_box_acts_at_once_on_what_is_drawn(open_page, digit_address):
    page = open_page(digit_address)
    when(page, "page.state.computed !== null")
    seen, box = "Array.from(page.state.image)", page.locator(".check input")
    specimen = page.evaluate(seen)
    box.uncheck()
    assert page.evaluate(seen) == specimen  # not drawn: as it is
    page.get_by_role("button", name="Blank").click()
    pad = page.locator(".pad").bounding_box()
    page.mouse.move(pad["x"] + 45, pad["y"] + 40)
    page.mouse.down()
    page.mouse.move(pad["x"] + 45, pad["y"] + 140, steps=4)
    page.mouse.up()
    columns = f"[...new Set({seen}.flatMap((grey, place) => grey > 0.5 ? [place % 28] : []))]"
    when(page, f"{seen}.some((grey) => grey === 1)")
    aside = page.evaluate(columns)
    assert max(aside) < 8  # a 24-pixel pen at 45 of 280
    for checked in (True, False, True):
        box.set_checked(checked)
        columns_now = page.evaluate(columns)
        assert (13 in columns_now and min(columns_now) > 8) if checked else columns_now == aside
        image = torch.tensor(page.evaluate(seen))
        outputs = torch.tensor(page.evaluate("Array.from(page.state.computed.activations.at(-1))"))
        torch.testing.assert_close(outputs, digit_answers().at(20)(image).sigmoid(), rtol=1e-4, atol=1e-5)
    page.get_by_role("button", name="shift right").click()
    page.get_by_role("button", name="shift right").click()
    moved = page.evaluate(columns)
    box.uncheck()
    assert page.evaluate(columns) == moved
    box.check()
    assert 13 in page.evaluate(columns)


def test_a_test_image_says_its_digit_until_something_else_is_drawn(open_page, digit_address):
    page = open_page(digit_address)
    when(page, "page.state.computed !== null")
    verdict, answers = page.locator("#draw .verdict"), digit_answers()
    for number in range(3):
        best = int(answers.at(20)(answers.specimens[number]).argmax())
        digit = answers.answers[number]
        outcome = "correct" if best == digit else "wrong"
        expected = f"Test image {number + 1}: label {digit}, predicted {best}: {outcome}."
        assert verdict.text_content() == expected
        page.get_by_role("button", name="Test image").click()
    page.get_by_role("button", name="shift left").click()
    image = torch.tensor(page.evaluate("Array.from(page.state.image)"))
    best = int(answers.at(20)(image).argmax())
    assert verdict.text_content().startswith(f"Test image 4: label 1, predicted {best}: ")
    for name in ("Noise", "Blank"):
        page.get_by_role("button", name="Test image").click()
        page.get_by_role("button", name=name).click()
        assert verdict.text_content() == ""
    page.get_by_role("button", name="Test image").click()
    page.locator(".pad").click()
    when(page, "document.querySelector('#draw .verdict').textContent === ''")


def cut_labels(page: "Page", selector: str) -> list[str]:
    """Texts of which a part lies outside the box, which hides it or has to be scrolled."""
    return page.evaluate(
        """(selector) => { const outer = document.querySelector(selector), box = outer.getBoundingClientRect();
            return [...outer.querySelectorAll('span, button, th, td')].filter((e) => {
                const b = e.getBoundingClientRect();
                return b.left < box.left - 1 || b.right > box.left + outer.clientWidth + 1
                    || b.top < box.top - 1 || b.bottom > box.top + outer.clientHeight + 1
                    || e.scrollWidth > b.width + 1;
            }).map((e) => e.textContent || e.getAttribute('aria-label')); }""",
        selector,
    )


@pytest.mark.parametrize("width", [1440, 1280, 1010])
def test_no_layer_and_no_head_is_cut_off_at_gpt_2s_numbers(open_page, long_address, width):
    page = open_page(long_address, width=width)
    when(page, "page.attention.layers.size === 12")
    assert cut_labels(page, ".heads") == []
    notes = page.locator(".heads .note").all_text_contents()
    assert notes == ["layer", *(f"head {n}" for n in range(12)), *map(str, range(12))]
    for layer, head in ((0, 0), (11, 11), (10, 3)):
        box = page.get_by_role("button", name=f"layer {layer}, head {head}", exact=True).bounding_box()
        column = page.locator(".heads .note").nth(13 + layer).bounding_box()
        row = page.locator(".heads .note").nth(1 + head).bounding_box()
        middle = lambda box, axis, edge: box[axis] + box[edge] / 2  # noqa: E731
        assert middle(column, "x", "width") == pytest.approx(middle(box, "x", "width"), abs=1)
        assert middle(row, "y", "height") == pytest.approx(middle(box, "y", "height"), abs=1)
        assert row["x"] + row["width"] <= page.locator(".head").first.bounding_box()["x"]


INSCRIBE = """() => {
    const fill = CanvasRenderingContext2D.prototype.fillText;
    window.inscribed = [];
    CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
        const { width } = this.measureText(text), from = { right: -width, center: -width / 2 }[this.textAlign] ?? 0;
        const at = (more) => new DOMPoint(x + more, y).matrixTransform(this.getTransform());
        const [a, b] = [at(from), at(from + width)];
        const { width: wide, height: high } = this.canvas;
        inscribed.push({ text, ink: this.fillStyle === '#1b2230', x: (a.x + b.x) / 2, y: (a.y + b.y) / 2,
            inside: Math.min(a.x, b.x, a.y, b.y) >= 0 && Math.max(a.x, b.x) <= wide && Math.max(a.y, b.y) <= high });
        return fill.call(this, text, x, y);
    };
}"""  # what is written on canvases from now on, where, and whether it lies inside


def test_long_and_wide_tokens_are_not_cut_off_on_the_pictures_of_attention(open_page):
    answers = text_answers("abcdefgh")
    answers.vocabulary = [["本" * 9, "antidisestablishment", "x", "👍" * 14][n % 4] for n in range(257)]
    for address in served(answers):
        for width in (1280, 390):
            page = open_page(address, width=width)
            ready(page)
            page.evaluate(INSCRIBE)
            for form in ("lines", "grid"):
                page.get_by_text(form, exact=True).click()
                written = page.evaluate("inscribed.splice(0)")
                assert len(written) >= 16 and [each["text"] for each in written if not each["inside"]] == []
                assert all("\ufffd" not in each["text"] and each["text"].isprintable() for each in written)


def test_a_place_is_looked_at_with_what_comes_after_it_and_its_neighbours(open_page, text_address, answers):
    page = open_page(text_address)
    ready(page)
    last = page.locator(".lens tbody tr").last.locator("td").all_text_contents()
    logits = answers.model(torch.tensor([list(PROMPT.encode())]))[0]
    vocabulary = answers.about()["vocabulary"]
    assert last == [vocabulary[token] for token in logits.argmax(dim=-1)]
    depths = logit_lens(answers.model, capture(answers.model, torch.tensor([list(PROMPT.encode())]))).tokens[:, :-1]
    right = int((depths == torch.tensor(list(PROMPT.encode())[1:])).sum())
    assert right > 0 and page.locator(".lens .came").count() == right
    page.locator(".lens tbody tr").last.locator("td").nth(4).click()
    when(page, f"document.querySelector('#next .note').textContent === 'after {PROMPT[4]}:'")
    page.locator(".chips button").nth(2).click()
    when(page, "document.querySelector('#neighbours .note').textContent === 'nearest to a:'")
    when(page, "document.querySelector('#next .note').textContent === 'after a:'")
    assert int(page.locator("#next .bars button").first.get_attribute("data-token")) == int(logits[2].argmax())
    table = answers.model.embedding.token.weight.detach()
    scores = {"cosine": torch.cosine_similarity(table, table[97:98]), "dot product": table @ table[97]}
    for title, found in scores.items():
        shown = page.locator(f"#neighbours .pair > div:has-text('by {title}') .token").all_text_contents()
        assert shown == [vocabulary[n] for n in found.topk(13).indices if n != 97][:12]
    page.keyboard.press("ArrowRight")
    when(page, "document.querySelector('#neighbours .note').textContent === 'nearest to s:'")


def test_a_character_that_the_server_refuses_is_said_in_a_line(open_page, text_address):
    page = open_page(text_address)
    page.evaluate("page.show([999])")
    page.wait_for_selector("#trouble:not([hidden])")
    assert page.locator("#trouble").text_content() == "token 999 is out of range (0 to 256)"


def test_the_page_computes_what_the_digit_network_computes(open_page, digit_address):
    page = open_page(digit_address)
    for activation in ("sigmoid", "relu", "tanh", "gelu", "gelu_tanh"):
        for reading in ("sigmoid", "softmax"):
            same_outputs(page, digit_answers(activation, reading), reading)


def same_outputs(page: "Page", answers: DigitAnswers, reading: str) -> None:
    """Every activation of a random image, computed in the page and by torch."""
    image = torch.rand(784, generator=torch.Generator().manual_seed(1))
    found = page.evaluate(
        """async ([answer, image, how]) => {
            const { networkOf, forward } = await import(`${location.href}mlp.js`);
            return forward(networkOf(answer), image, how).activations.slice(1).map((a) => Array.from(a));
        }""",
        [answers.network(AtStep(step=20)), image.tolist(), answers.about()],
    )
    a, (*hidden, last) = image, answers.at(20).layers
    for layer, values in zip(hidden, found[:-1], strict=True):
        a = answers.at(20).activation(layer(a))
        torch.testing.assert_close(torch.tensor(values), a.detach(), rtol=1e-5, atol=1e-6)
    outputs = last(a).sigmoid() if reading == "sigmoid" else last(a).softmax(dim=-1)
    torch.testing.assert_close(torch.tensor(found[-1]), outputs.detach(), rtol=1e-5, atol=1e-6)


def test_a_drawing_is_centred_as_pictures_are(open_page, digit_address):
    page = open_page(digit_address)
    generator = torch.Generator().manual_seed(0)
    for top, bottom, left, right in ((40, 250, 100, 160), (3, 90, 5, 270), (100, 111, 100, 117), (0, 280, 0, 280)):
        grey = torch.zeros(280, 280, dtype=torch.uint8)
        heavy = torch.linspace(0.1, 1, right - left)  # to the right, so that the mass is not in the middle
        ink = torch.randint(256, (bottom - top, right - left), generator=generator)
        grey[top:bottom, left:right] = (ink * heavy).byte()
        found = page.evaluate(
            "(grey) => Array.from(page.centred(Float32Array.from(atob(grey), (c) => c.charCodeAt(0) / 255), 280))",
            base64.b64encode(grey.numpy().tobytes()).decode(),
        )
        expected = centre(grey.numpy().astype(np.float32) / 255)
        torch.testing.assert_close(torch.tensor(found), expected, rtol=1e-4, atol=1e-5)


def test_a_digit_is_drawn_and_read_at_every_stroke(open_page, digit_address):
    page = open_page(digit_address)
    when(page, "page.state.computed !== null")
    page.get_by_role("button", name="Blank").click()
    assert page.evaluate("Math.max(...page.state.image)") == 0
    box = page.locator(".pad").bounding_box()
    page.mouse.move(box["x"] + 140, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 140, box["y"] + 240, steps=8)
    page.mouse.up()
    when(page, "Math.max(...page.state.image) === 1")
    image = torch.tensor(page.evaluate("Array.from(page.state.image)")).view(28, 28)
    rows = (image > 0.5).any(dim=1).nonzero().flatten()
    assert len(rows) in (19, 20, 21) and image[:, 14].sum() > 10  # upright, 20 pixels high, in the middle
    expected = digit_answers().at(20)(image.flatten()).sigmoid()
    torch.testing.assert_close(
        torch.tensor(page.evaluate("Array.from(page.state.computed.activations.at(-1))")),
        expected,
        rtol=1e-4,
        atol=1e-5,
    )
    best = [str(int(expected.argmax()))]
    assert page.locator("#outputs .best .token").all_text_contents() == best
    assert page.locator(".network .best").all_text_contents() == best
    before = page.evaluate("Array.from(page.state.image)")
    for name in ("shift left", "shift up", "rotate right", "Noise", "Test image"):
        page.get_by_role("button", name=name).click()
        after = page.evaluate("Array.from(page.state.image)")
        assert after != before, name
        before = after
    page.get_by_role("button", name="Blank").click()
    page.locator(".pad").focus()
    page.keyboard.press("Space")
    for _ in range(5):
        page.keyboard.press("ArrowDown")
    when(page, "Math.max(...page.state.image) === 1")


def drawn_by_finger(page: "Page", points: list[tuple[float, float]]) -> None:
    """One finger goes from point to point, as a touch screen tells the browser."""
    screen = page.context.new_cdp_session(page)
    for kind, (x, y) in zip(["touchStart"] + ["touchMove"] * (len(points) - 1), points, strict=True):
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    screen.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_a_digit_is_drawn_with_a_finger_and_the_page_stands_still(open_page, digit_address):
    page = open_page(digit_address, width=768, touch=True)
    when(page, "page.state.computed !== null")
    outputs, seen = "Array.from(page.state.computed.activations.at(-1))", "Array.from(page.state.image)"
    example = torch.tensor(page.evaluate(outputs))
    box = page.locator(".pad").bounding_box()
    middle = box["x"] + box["width"] / 2
    drawn_by_finger(page, [(middle, box["y"] + box["height"] * (0.9 - n / 20)) for n in range(16)])
    when(page, "page.state.image[0] === 0 && Math.max(...page.state.image) === 1")  # not the example, which is noise
    assert page.evaluate("scrollY") == 0
    image = torch.tensor(page.evaluate(seen)).view(28, 28)
    assert image[5:23, 14].min() > 0.9 and image[:, :12].max() == 0  # upright and in the middle
    answer = torch.tensor(page.evaluate(outputs))
    torch.testing.assert_close(answer, digit_answers().at(20)(image.flatten()).sigmoid(), rtol=1e-4, atol=1e-5)
    assert (answer - example).abs().max() > 0.01
    drawn_by_finger(page, [(middle + 250, 800 - 20 * n) for n in range(16)])  # beside the pad the same finger scrolls
    when(page, "scrollY > 100")
    assert page.evaluate(seen) == image.flatten().tolist()


def test_the_parameters_are_counted_as_the_views_of_both_counts_have_them(
    open_page, text_address, digit_address, answers, tmp_path
):
    page = open_page(text_address)
    (tmp_path / "same.toml").write_text(SAME)
    rows = [
        [cell.text_content() for cell in row.locator("th, td").all()] for row in page.locator(".tally tbody tr").all()
    ]
    for count, words, column in (("exact", [], 2), ("lessons", ["--lesson"], 4)):
        still = look(understand([str(tmp_path / "same.toml"), "parameters", *words])).text
        expected = re.findall(r"^(\S+) +(.+?\w) +([\d,]+) +([\d.]+)%$", still, re.MULTILINE)
        assert len(expected) > 7
        shown = [(row[0], row[1].replace("×", "x"), row[column], row[column + 1]) for row in rows if row[column] != "–"]
        assert sorted(shown) == sorted((*parts, f"{share} %") for *parts, share in expected)
        total = re.match(r"same: ([\d,]+) parameters", still)[1]
        assert page.locator(f"[data-count={count}] figcaption").text_content().startswith(f"{total}, ")
        assert total == page.locator(".tally tfoot tr").locator("th, td").nth(column).text_content()
        pieces = page.locator(f"[data-count={count}] .stack span")
        widths = [piece.bounding_box()["width"] for piece in pieces.all()]
        parts = [int(part.replace(",", "")) for *_, part, _ in expected]
        largest = max(range(len(parts)), key=parts.__getitem__)
        assert widths[largest] == pytest.approx(parts[largest] / sum(parts) * sum(widths), rel=0.03)
    assert f"{sum(p.numel() for p in answers.model.parameters()):,} parameters" in page.locator("#facts").text_content()
    digits = open_page(digit_address)
    assert digits.locator("#parameters figcaption").all_text_contents() == ["13,002 parameters"]
    assert digits.locator(".tally tbody tr").first.text_content() == "Weights 116 neurons × 784 inputs12,54496.5 %"


def test_a_neuron_is_chosen_and_the_steps_of_training_are_gone_through(open_page, digit_address):
    page = open_page(digit_address)
    when(page, "page.state.computed !== null")
    page.get_by_role("button", name="layer 1, neuron 3").click()
    what = page.locator("#chosen .readout")
    assert what.text_content().startswith("Layer 1, neuron 3: weighted sum ")
    page.keyboard.press("ArrowDown")
    assert what.text_content().startswith("Layer 1, neuron 4: ")
    page.keyboard.press("ArrowRight")
    assert what.text_content().startswith("Layer 2, neuron 4: ")
    page.get_by_role("button", name="Blank").click()  # to which weights are the same, and nothing comes in
    inks = """[...document.querySelectorAll('#chosen figure > canvas')].map((canvas) => new Set(
        canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size)"""
    page.get_by_role("button", name="layer 1, neuron 3").click()
    weights, passed = page.evaluate(inks)
    assert weights > 50 and passed == 1
    page.get_by_role("button", name="Test image").click()
    page.get_by_role("button", name="output 7").click()
    assert what.text_content().startswith("Output 7: ")
    outputs = "Array.from(page.state.computed.activations.at(-1))"
    before, image = page.evaluate(outputs), page.evaluate("Array.from(page.state.image)")
    page.locator("#training input").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#training output").text_content() == "30"
    when(page, f"JSON.stringify({outputs}) !== '{before}'.replaceAll(' ', '')")
    expected = digit_answers().at(30)(torch.tensor(image)).sigmoid()
    torch.testing.assert_close(torch.tensor(page.evaluate(outputs)), expected, rtol=1e-4, atol=1e-5)


def test_every_checkpoint_is_played_and_asked_for_once(open_page, digit_address):
    page = open_page(digit_address)
    when(page, "page.state.computed !== null")
    asked = []
    page.on("request", lambda request: asked.append(request.post_data) if "network" in request.url else None)
    page.get_by_role("button", name="Play").click()
    page.wait_for_timeout(50)
    page.get_by_role("button", name="Play").click()  # from the beginning, and not twice at a time
    when(page, "document.querySelector('#training output').textContent === '30'")
    assert sorted(asked) == ['{"step":10}', '{"step":30}']  # that of step 20, the best, was there
    page.get_by_role("button", name="Play").click()
    page.locator("#training input").fill("1")
    page.wait_for_timeout(1500)
    assert page.locator("#training output").text_content() == "20"


def test_a_wide_layer_is_gone_through_by_keyboard(open_page):
    for address in served(digit_answers(hidden=20)):
        page = open_page(address)
        when(page, "page.state.computed !== null")
        page.locator(".network circle[tabindex='0']").focus()
        for key, column in (("ArrowDown", "layer 1"), ("Enter", "layer 1"), ("ArrowRight", "layer 2")):
            page.keyboard.press(key)
            assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(column)


# What is written: titles, axes, numbers of layers and places, tooltips, readouts, against the value in that very cell.

TOKENS, NAMES = list(PROMPT.encode()), list(PROMPT.replace(" ", "␣"))


def reads(text: str, pattern: str, *values: float) -> None:
    """The whole text is the pattern, where each # is a number: this value, rounded to the digits that are written."""
    number = r"([−-]?[\d,]+(?:\.\d+)?)"
    match = re.fullmatch(re.escape(pattern).replace(r"\#", number), text)
    assert match, f"{text!r} is not {pattern!r}"
    for written, value in zip(match.groups(), values, strict=True):
        digits = len(written.partition(".")[2])
        assert float(written.replace("−", "-").replace(",", "")) == pytest.approx(
            float(value), abs=0.52 * 10**-digits
        ), text


def reads_share(text: str, share: float) -> None:
    """The text is this share as per cent: one digit below 10 %, "< 0.1 %" where that would be none."""
    if "<" in text:
        assert text == "< 0.1 %" and 0 < share < 0.00101
    else:
        reads(text, "# %", 100 * share)
        assert share == 0 or ("." in text) == (share < 0.0995)


def shade(value: float) -> list[int]:
    """The colour of a number from -1 to 1 by day: white at 0, then a middle colour, then a full one, by |value|^0.7."""
    blue, orange = ([120, 174, 232], [12, 84, 168]), ([247, 174, 104], [186, 74, 0])
    middle, full = orange if value < 0 else blue
    t = min(1, abs(value)) ** 0.7 * 2
    start, end, part = ([255, 255, 255], middle, t) if t < 1 else (middle, full, t - 1)
    return [round(a + (b - a) * part) for a, b in zip(start, end, strict=True)]


def rgb(css: str) -> list[int]:
    """The numbers in rgb(1, 2, 3)."""
    return [int(n) for n in re.findall(r"\d+", css)][:3]


def pixel(page: "Page", selector: str, x: float, y: float, nth: int = 0) -> list[int]:
    """The colour of a canvas at a point."""
    return page.evaluate(
        """([selector, nth, x, y]) => {
            const canvas = document.querySelectorAll(selector)[nth];
            const copy = new OffscreenCanvas(canvas.width, canvas.height), read = { willReadFrequently: true };
            const context = copy.getContext('2d', read);
            context.drawImage(canvas, 0, 0);
            return [...context.getImageData(x, y, 1, 1).data.slice(0, 3)];
        }""",
        [selector, nth, x, y],
    )


def legend_parts(page: "Page", legend: str, nth: int = 0) -> list[str]:
    """What a legend says: at its left end, at its right end, and behind."""
    return page.locator(legend).nth(nth).evaluate("(e) => [...e.childNodes].map((n) => n.textContent).filter(Boolean)")


def legend_runs(page: "Page", legend: str, low: float, high: float) -> None:
    """The ramp of a legend goes from the colour of one number to that of the other, left to right."""
    for x in (1, 30, 90, 118):
        expected = shade(low + (high - low) * x / 119)
        assert pixel(page, f"{legend} canvas", x, 5) == pytest.approx(expected, abs=4)


LAYOUTS = {
    "lesson: one column per query": "queries across the top, keys down the side",
    "papers: one row per query": "keys across the top, queries down the side",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_cell_under_the_pointer_is_explained_by_its_own_numbers(open_page, text_address, answers, layout):
    page = open_page(text_address)
    ready(page)
    layer, head = 1, 0
    page.get_by_role("button", name=f"layer {layer}, head {head}").click()
    page.get_by_text(layout).click()
    title = f"Layer {layer}, head {head}: {LAYOUTS[layout]}"
    assert page.get_by_text(title, exact=True).is_visible()
    block, seen = answers.model.blocks[layer].attention, capture(answers.model, torch.tensor([TOKENS])).layers[layer]
    found = attention(block, seen.attention_in)
    scores, pattern, weighted = (getattr(found, stage)[0, head] for stage in ("scores", "pattern", "weighted"))
    canvas = page.locator("#attention canvas.picture")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    cell = (box["width"] - MARGIN - 4) / len(PROMPT)
    for across, down in ((5, 5), (0, 0), (30, 30), (9, 4), (4, 9), (30, 0), (6, 5), (5, 6)):
        query, key = (across, down) if layout.startswith("lesson") else (down, across)
        page.mouse.move(box["x"] + MARGIN + (across + 0.5) * cell, box["y"] + MARGIN + (down + 0.5) * cell)
        start = f"{NAMES[query]} (query, position {query}) ← {NAMES[key]} (key, position {key}): "
        start += "the 8 products below add up to q·k = #; divided by √8, the score is #. "
        dot = 8**0.5 * scores[query, key]
        text = page.locator("#cell").text_content()
        if key > query:
            reads(text, start + "This key comes later, so it is masked: weight 0.", dot, scores[query, key])
            continue
        end = "Its weight after softmax is #; times the value's length, #, that is #."
        share, times = pattern[query, key], weighted[query, key]
        reads(text, start + end, dot, scores[query, key], share, times / share, times)


def test_the_rows_and_columns_of_attention_carry_their_tokens(open_page, text_address):
    page = open_page(text_address)
    ready(page)
    page.evaluate(INSCRIBE)
    box = page.locator("#attention canvas.picture").bounding_box()
    cell = (box["width"] - MARGIN - 4) / len(PROMPT)
    middle = lambda place: MARGIN + (place + 0.5) * cell - 0.5  # noqa: E731
    for layout in reversed(LAYOUTS):
        page.get_by_text(layout).click()
        page.mouse.move(box["x"] + middle(9), box["y"] + middle(4))
        written = page.evaluate("inscribed.splice(0).slice(-62)")  # the last drawing: both sides of 31
        top = sorted((each for each in written if each["y"] < MARGIN), key=lambda each: each["x"])
        side = sorted((each for each in written if each["y"] >= MARGIN), key=lambda each: each["y"])
        for labels, axis, chosen in ((top, "x", 9), (side, "y", 4)):
            assert [each["text"] for each in labels] == NAMES
            assert [each[axis] for each in labels] == pytest.approx([middle(n) for n in range(31)], abs=0.6)
            assert [place for place, each in enumerate(labels) if each["ink"]] == [chosen]
    page.get_by_text("lines", exact=True).click()
    canvas = page.locator("#attention canvas.picture")
    canvas.hover(position={"x": 20, "y": 22 + 7.5 * 560 / 31})
    canvas.hover(position={"x": 500, "y": 22 + 2.5 * 560 / 31})
    assert page.get_by_text("Layer 0, head 0: from each query to the keys it attends to", exact=True).is_visible()
    assert page.locator("#cell").text_content().startswith("s (query, position 7) ← a (key, position 2): ")
    written = page.evaluate("inscribed.splice(0).slice(-64)")
    heads = [(each["text"], each["x"] < 260) for each in written[-2:]]
    assert heads == [("query", True), ("attends to key", False)]
    for left, chosen in ((True, 7), (False, 2)):
        labels = sorted((w for w in written[:-2] if (w["x"] < 260) == left), key=lambda each: each["y"])
        assert [each["text"] for each in labels] == NAMES
        assert [place for place, each in enumerate(labels) if each["ink"]] == [chosen]


def test_each_stage_of_attention_has_its_scale_and_meaning(open_page, text_address, answers):
    page = open_page(text_address)
    ready(page)
    page.get_by_role("button", name="layer 1, head 1").click()
    seen = capture(answers.model, torch.tensor([TOKENS])).layers[1]
    found = attention(answers.model.blocks[1].attention, seen.attention_in)
    box = page.locator("#attention canvas.picture").bounding_box()
    cell = (box["width"] - MARGIN - 4) / len(PROMPT)
    meanings = {
        "scores": ("scores", "q·k / √D, all pairs"),
        "masked": ("masked", "later tokens masked with −∞"),
        "softmax": ("pattern", "weights that sum to 1 for each query"),
        "× value": ("weighted", "weight × length of the value"),
    }
    for name, (stage, meaning) in meanings.items():
        page.get_by_text(name, exact=True).click()
        values = getattr(found, stage)[0, 1]
        limit = 1.0 if stage == "pattern" else float(values[values.isfinite()].abs().max())
        signed = stage in ("scores", "masked")
        low, high, words = legend_parts(page, "#attention .legend")
        reads(high, "#", limit)
        assert low == (f"−{high}" if signed else "0") and words == meaning
        legend_runs(page, "#attention .legend", -1 if signed else 0, 1)
        for query, key in ((20, 7), (11, 11), (30, 2), (9, 1)):
            point = MARGIN + query * cell + cell / 2 - 1, MARGIN + key * cell + cell / 2 - 1
            expected = shade(float(values[query, key]) / limit)
            assert pixel(page, "canvas.picture", *point) == pytest.approx(expected, abs=3), (name, query, key)


def test_a_thumbnail_is_the_head_that_its_name_says(open_page, text_address, answers):
    page = open_page(text_address)
    page.fill("#prompt", "ab")
    when(page, "page.state.tokens.length === 2")
    ready(page)
    for layer, seen in enumerate(capture(answers.model, torch.tensor([[97, 98]])).layers):
        shares = attention(answers.model.blocks[layer].attention, seen.attention_in).pattern[0, :, 1, 0]
        for head in range(2):  # the second query's share of the first key: upper right, of 56 pixels
            page.get_by_role("button", name=f"layer {layer}, head {head}").click()
            assert page.get_by_text(f"Layer {layer}, head {head}: ").is_visible()
            assert page.evaluate("[page.attention.state.layer, page.attention.state.head]") == [layer, head]
            colour = pixel(page, ".head[aria-pressed='true'] canvas", 42, 14)
            assert colour == pytest.approx(shade(float(shares[head])), abs=3)


def test_the_strip_below_a_cell_has_a_bar_for_each_product(open_page, text_address, answers):
    page = open_page(text_address)
    ready(page)
    page.evaluate("Object.assign(page.attention.state, { query: 9, key: 5 })")
    page.get_by_role("button", name="layer 0, head 1").click()
    module, seen = answers.model.blocks[0].attention, capture(answers.model, torch.tensor([TOKENS])).layers[0]
    queries, keys = module.queries_and_keys(seen.attention_in)
    products = (queries[0, 1, 9] * keys[0, 1, 5]).tolist()
    width = page.locator(".strip").bounding_box()["width"]
    for d, product in enumerate(products):
        height = 25 * product / max(map(abs, products))
        if abs(height) < 3:
            continue
        at = (d + 0.5) * width / 8
        for y, filled in ((27 - height / 2, True), (27 + height / 2, False)):
            colour = pixel(page, ".strip", at, y)
            assert (colour == pytest.approx(shade(-0.75 if product < 0 else 0.75), abs=2)) == filled, d


def test_the_bars_of_the_next_token_are_its_chances(open_page, text_address, answers):
    page = open_page(text_address)
    ready(page)
    page.locator(".chips button").nth(6).click()
    when(page, "document.querySelector('#next .note').textContent === 'after <:'")
    logits = answers.model(torch.tensor([TOKENS]))[0, 6].detach()
    plain, order = logits.softmax(dim=-1), logits.argsort(descending=True)
    names = ["Temperature", "Top-k", "Top-p"]
    assert page.locator("#next .slider span").all_text_contents() == names
    legend = page.locator("#next .legend")
    assert legend.text_content() == "with the sliders' settingsat temperature 1, unfiltered"
    colours = "(name) => getComputedStyle(document.querySelector(name)).backgroundColor"
    for swatch, bar in ((0, ".track .bar"), (1, ".track .ghost")):
        its = legend.locator(".swatch").nth(swatch).evaluate("(e) => getComputedStyle(e).backgroundColor")
        assert its == page.evaluate(colours, bar)
    settings = ((1.0, 10, 257, 1.0), (0.7, 6, 20, 1.0), (2.0, 5, 10, 0.4), (0.0, 10, 257, 1.0))
    for temperature, place, top_k, top_p in settings:
        sliders = {"Temperature": temperature, "Top-k": place, "Top-p": top_p}
        for n, (name, value) in enumerate(sliders.items()):
            slider = page.locator("#next input[type=range]").nth(n)
            assert slider.get_attribute("aria-label") == name
            slider.fill(str(value))
        shown = page.locator("#next .slider output").all_text_contents()
        assert shown == [f"{temperature:.2f}", "all" if top_k == 257 else str(top_k), f"{top_p:.2f}"]
        chances = distribution(logits, Sampling(temperature, top_k, top_p))
        kept = int((chances > 0).sum())
        rows = page.locator("#next .bars li").all()
        longest = max(float(chances.max()), float(plain.max()))
        for token, row in zip(order[:12].tolist(), rows, strict=True):
            name, share = answers.vocabulary[token], row.locator(".share").text_content()
            assert row.locator(".token").text_content() == name
            label = row.locator("button").get_attribute("aria-label")
            assert label == f"{name}: {share}. Append it"
            if share.startswith("cut"):
                rank = int((logits > logits[token]).sum())
                assert chances[token] == 0 and share == f"cut by top-{'k' if rank >= top_k else 'p'}"
            else:
                reads_share(share, float(chances[token]))
            for bar, part in ((".bar", chances[token]), (".ghost", plain[token])):
                width = row.locator(bar).evaluate("(bar) => parseFloat(bar.style.width)")
                assert width == pytest.approx(100 * float(part) / longest, abs=0.1)
        text = page.locator("#next .note").nth(1).text_content()
        rest = float(chances[order[12:]].sum())
        if kept > 12:
            start, _, share = text.removesuffix(" in total.").partition("; those after the top 12 have ")
            reads(start, "# of 257 tokens can be sampled", kept)
            reads_share(share, rest)
        else:
            reads(text, "# of 257 tokens can be sampled.", kept)


def test_the_rows_of_the_logit_lens_are_the_layers_they_are_named_after(open_page, text_address, answers):
    page = open_page(text_address)
    ready(page)
    found = capture(answers.model, torch.tensor([TOKENS]))
    model = answers.model
    assert page.locator(".lens thead th").all_text_contents() == ["after", *NAMES]
    vectors = {"embedding": found.embedded, "layer 0": found.layers[0].after, "layer 1": found.layers[1].after}
    rows = page.locator(".lens tbody tr").all()
    assert [row.locator("th").text_content() for row in rows] == list(vectors)
    legend = page.locator("#lens .legend")
    assert legend.text_content() == "0 %100 %probability of the top token; framed if it comes next in the text"
    legend_runs(page, "#lens .legend", 0, 1)
    for row, stream in zip(rows, vectors.values(), strict=True):
        chances = model.unembedding(model.norm(stream)).softmax(dim=-1)[0].detach()
        cells = row.locator("td").evaluate_all(
            "(all) => all.map((c) => [c.textContent, c.title, c.className, getComputedStyle(c).backgroundColor])"
        )
        for place, (name, title, frame, colour) in enumerate(cells):
            share, token = chances[place].max(dim=-1)
            assert name == answers.vocabulary[token] and title.startswith(f"{name} ")
            reads_share(title.removeprefix(f"{name} "), float(share))
            came = place + 1 < len(TOKENS) and int(token) == TOKENS[place + 1]
            assert frame == ("came" if came else "")
            assert rgb(colour) == pytest.approx(shade(0.9 * float(share)), abs=2)
    rows[1].locator("td").nth(4).click()  # the place of its column
    when(page, f"document.querySelector('#next .note').textContent === 'after {PROMPT[4]}:'")
    assert page.evaluate("page.state.position") == 4


def test_a_token_carries_the_bits_that_it_cost_itself(open_page, text_address, answers):
    page = open_page(text_address)
    ready(page)
    costs = -answers.model(torch.tensor([TOKENS]))[0].detach().log_softmax(dim=-1) / torch.tensor(2.0).log()
    assert page.locator("#text .legend").text_content() == "012 bits of surprise"
    legend_runs(page, "#text .legend", 0, -1)
    assert page.locator("#text .note").text_content() == "31 tokens."
    for place, chip in enumerate(page.locator(".chips button").all()):
        name = NAMES[place]
        assert chip.text_content() == name
        colour = rgb(chip.evaluate("(chip) => getComputedStyle(chip).backgroundColor"))
        if place == 0:  # nothing comes before it
            assert (chip.get_attribute("aria-label"), chip.get_attribute("title"), colour) == (name, "", [255] * 3)
            continue
        bits = float(costs[place - 1, TOKENS[place]])
        reads(chip.get_attribute("title"), "# bits of surprise", bits)
        reads(chip.get_attribute("aria-label"), f"{name}, # bits", bits)
        assert colour == pytest.approx(shade(-bits / 12), abs=2)
    page.fill("#prompt", "a")
    when(page, "document.querySelector('#text .note').textContent === '1 token.'")


def test_neighbours_carry_their_own_scores_below_the_measures_name(open_page, text_address, answers):
    page = open_page(text_address)
    ready(page)
    page.locator(".chips button").nth(1).click()
    when(page, "document.querySelector('#neighbours .note').textContent === 'nearest to l:'")
    table, token = answers.model.embedding.token.weight.detach(), ord("l")
    measures = {
        "by cosine": torch.cosine_similarity(table, table[token : token + 1]),
        "by dot product": table @ table[token],
    }
    columns = page.locator("#neighbours .pair > div").all()
    assert [column.locator("h3").text_content() for column in columns] == list(measures)
    for column, scores in zip(columns, measures.values(), strict=True):
        for row in column.locator("li").all():
            near = answers.vocabulary.index(row.locator(".token").text_content())
            reads(row.locator(".share").text_content(), "#", float(scores[near]))
            longest = scores[torch.arange(257) != token].max()
            width = row.locator(".bar").evaluate("(bar) => parseFloat(bar.style.width)")
            assert width == pytest.approx(100 * float(scores[near] / longest), abs=0.1)
    page.evaluate("document.querySelector('#neighbours .pair').replaceChildren()")
    minus = "getComputedStyle(document.querySelector('#neighbours .minus')).backgroundColor"
    page.route("**/neighbours", lambda route: route.fulfill(json={"dot": [[5, 2], [6, -1]], "cosine": [[7, -0.5]]}))
    page.locator(".chips button").nth(3).click()
    when(page, "document.querySelectorAll('#neighbours .minus').length === 2")
    assert rgb(page.evaluate(minus)) == [0xBA, 0x4A, 0x00]  # orange is negative
    assert page.locator("#neighbours .share").all_text_contents() == ["-0.50", "2.00", "-1.00"]


def test_the_head_of_the_page_says_the_networks_sizes(open_page, text_address, digit_address, answers):
    page, config = open_page(text_address), answers.model.config
    count = sum(parameter.numel() for parameter in answers.model.parameters())
    sizes = (config.n_layer, config.n_head, config.n_embd, config.vocab_size, config.context_length, count)
    depth = "A transformer with # layers of # heads"
    rest = "; vectors of # dimensions, a vocabulary of # tokens, a context of #; "
    reads(page.locator("#facts").text_content(), f"{depth}{rest}# parameters.", *sizes)
    for address in served(text_answers("ab", n_layer=3, n_head=4)):  # the other has as many layers as heads
        page = open_page(address)
        reads(page.locator("#facts").text_content().partition(";")[0], depth, 3, 4)
        ready(page, layers=3)
    digits = open_page(digit_address)
    assert digits.locator("#facts").text_content() == "A network with 784-16-16-10 neurons; 13,002 parameters."
    assert digits.locator("h1").text_content() == "digits"


def test_a_piece_of_the_parameters_is_named_and_coloured_as_in_the_table(open_page, text_address):
    page = open_page(text_address)
    heads = page.locator(".tally thead th").all_text_contents()
    assert heads == ["matrix", "product", "all parameters", "share", "lessons’ count", "share"]
    colour = "(all) => all.map((e) => getComputedStyle(e).backgroundColor)"
    names = page.locator(".tally tbody th").all_text_contents()
    colours = dict(zip(names, page.locator(".tally .swatch").evaluate_all(colour), strict=True))
    assert len(set(colours.values())) == len(colours) > 8
    rows = [row.locator("td").all_text_contents() for row in page.locator(".tally tbody tr").all()]
    for count, column in (("exact", 1), ("lessons", 3)):
        pieces = page.locator(f"[data-count={count}] .stack span")
        titles = pieces.evaluate_all("(all) => all.map((e) => e.title)")
        table = {name: f"{name}: {row[column]}, {row[column + 1]}" for name, row in zip(names, rows, strict=True)}
        assert titles == [table[title.partition(":")[0]] for title in titles]
        assert len(titles) == sum(row[column] != "–" for row in rows)
        assert pieces.evaluate_all(colour) == [colours[title.partition(":")[0]] for title in titles]
        widths = pieces.evaluate_all("(all) => all.map((e) => Number(e.style.flexGrow))")
        parts = [title.partition(": ")[2].rpartition(", ")[0] for title in titles]
        assert [f"{width:,.0f}" for width in widths] == parts


def layers_of(answers: DigitAnswers, step: int, image: list[float]) -> tuple[list, list]:
    """Weighted sums and activations of every layer, the pixels first."""
    a = torch.tensor(image)
    sums, activations, model = [None], [a], answers.at(step)
    for depth, layer in enumerate(model.layers, 1):
        z = layer(activations[-1]).detach()
        sums.append(z)
        activations.append(z.sigmoid() if depth == len(model.layers) else model.activation(z))
    return sums, activations


@pytest.mark.parametrize("hidden", [16, 20])
def test_the_picture_of_the_network_names_each_neuron_and_its_activation(open_page, hidden):
    answers = digit_answers("tanh", hidden=hidden)
    for address in served(answers):
        page = open_page(address)
        when(page, "page.state.computed !== null")
        _, activations = layers_of(answers, 20, page.evaluate("Array.from(page.state.image)"))
        layers = answers.at(20).layers
        strong = layers[1].weight.norm(dim=0).topk(16).indices.sort().values.tolist()
        columns = {1: strong, 2: range(16), 3: range(10)}
        circles = page.locator(".network circle").all()
        expected = [(depth, neuron) for depth, neurons in columns.items() for neuron in neurons]
        assert len(circles) == len(expected)
        more = page.locator(".network .more").all_text_contents()
        assert more == ([] if hidden == 16 else ["and 4 more"])
        before = 0.0
        for circle, (depth, neuron) in zip(circles, expected, strict=True):
            name = f"output {neuron}" if depth == 3 else f"layer {depth}, neuron {neuron}"
            assert circle.get_attribute("aria-label") == name
            value = float(activations[depth][neuron])
            reads(circle.text_content(), f"{name}: #", value)
            top = max(1.0, float(activations[depth].abs().max()))
            fill = rgb(circle.evaluate("(circle) => getComputedStyle(circle).fill"))
            assert fill == pytest.approx(shade(value / top), abs=2)
            across = float(circle.get_attribute("cx"))
            assert across >= before  # layer by layer, left to right
            before = across
        digits = page.locator(".network .digit").all()
        for digit, (text, circle) in enumerate(zip(digits, circles[-10:], strict=True)):
            assert text.text_content() == str(digit)
            assert float(text.get_attribute("y")) == pytest.approx(float(circle.get_attribute("cy")), abs=8)
        lines_carry_weight_times_activation(page, layers, activations, columns)


def lines_carry_weight_times_activation(page: "Page", layers, activations, columns) -> None:
    """Blue where that is positive, orange where it is negative, and the strongest line into a layer is the widest."""
    lines = page.locator(".network line").evaluate_all(
        "(all) => all.map((line) => [line.style.stroke, Number(line.style.strokeWidth)])"
    )
    passed = [[float(layers[0].weight.detach()[n] @ activations[0]) for n in columns[1]]]
    for depth in (2, 3):
        products = layers[depth - 1].weight.detach() * activations[depth - 1]
        passed.append([float(products[n, source]) for n in columns[depth] for source in columns[depth - 1]])
    flat = [(value, abs(value) / max(map(abs, layer))) for layer in passed for value in layer]
    for (stroke, width), (value, part) in zip(lines, flat, strict=True):
        assert rgb(stroke) == shade(-0.75 if value < 0 else 0.75)
        assert width == pytest.approx(0.4 + 2.6 * part, abs=0.01)
    legend = page.locator("#network .legend").text_content()
    assert legend == "inhibitsexcitesscaled to the strongest line into each layer"
    legend_runs(page, "#network .legend", -1, 1)


@pytest.mark.parametrize("reading", ["sigmoid", "softmax"])
def test_the_ten_outputs_carry_their_digits(open_page, reading):
    answers = digit_answers(reading=reading)
    for address in served(answers):
        page = open_page(address)
        when(page, "page.state.computed !== null")
        image = torch.tensor(page.evaluate("Array.from(page.state.image)"))
        scores = answers.at(20)(image).detach()
        outputs = scores.sigmoid() if reading == "sigmoid" else scores.softmax(dim=-1)
        rows = page.locator("#outputs li").all()
        for digit, (row, value) in enumerate(zip(rows, outputs.tolist(), strict=True)):
            assert row.locator(".token").text_content() == str(digit)
            reads_share(row.locator(".share").text_content(), value)
            width = row.locator(".bar").evaluate("(bar) => parseFloat(bar.style.width)")
            assert width == pytest.approx(100 * value, abs=0.1)
            assert row.get_attribute("class") == ("best" if digit == int(outputs.argmax()) else "")
        sentence = page.locator("#outputs .sentence").text_content()
        assert sentence.startswith("Softmax turns" if reading == "softmax" else "Each output is a separate neuron")


def test_a_neuron_is_written_about_with_its_own_sums_and_painted_with_its_own_weights(open_page, digit_address):
    answers = digit_answers()
    page = open_page(digit_address)
    when(page, "page.state.computed !== null")
    sums, activations = layers_of(answers, 20, page.evaluate("Array.from(page.state.image)"))
    for depth, neuron, name in ((1, 3, "layer 1, neuron 3"), (2, 9, "layer 2, neuron 9"), (3, 7, "output 7")):
        page.get_by_role("button", name=name, exact=True).click()
        layer = answers.at(20).layers[depth - 1]
        bias, total = float(layer.bias.detach()[neuron]), float(sums[depth][neuron])
        text = page.locator("#chosen .readout").text_content().replace("+", "")
        pattern = "weighted sum #, bias #, total #; activation #."
        title = name[0].upper() + name[1:]
        reads(text, f"{title}: {pattern}", total - bias, bias, total, float(activations[depth][neuron]))
        weights = layer.weight[neuron].detach()
        columns, size = (28, 8) if depth == 1 else (16, 18)
        pictures = {"its weights": weights, "weights × inputs": weights * activations[depth - 1]}
        assert page.locator("#chosen figcaption").all_text_contents() == list(pictures)
        for nth, (caption, values) in enumerate(pictures.items()):
            limit = float(values.abs().max())
            low, high = legend_parts(page, "#chosen figure .legend", nth)
            reads(high, "#", limit)
            assert low == f"−{high}"
            assert page.locator("#chosen figure > canvas").nth(nth).get_attribute("aria-label") == caption
            for place in (0, 5, 15) if depth > 1 else (0, 27, 29, 400, 783):
                x, y = (place % columns + 0.5) * size - 1, (place // columns + 0.5) * size - 1
                expected = shade(float(values[place]) / limit)
                colour = pixel(page, "#chosen figure > canvas", x, y, nth)
                assert colour == pytest.approx(expected, abs=3), (name, place)


def test_the_slider_of_training_says_the_step_whose_network_answers(open_page, digit_address):
    answers = digit_answers()
    page = open_page(digit_address)
    when(page, "page.state.computed !== null")
    slider = page.locator("#training input")
    assert page.locator("#training .slider span").text_content() == slider.get_attribute("aria-label") == "Step"
    image = torch.tensor(page.evaluate("Array.from(page.state.image)"))
    for place, step in ((1, 20), (0, 10), (2, 30)):
        slider.fill(str(place))
        outputs = answers.at(step)(image).sigmoid().tolist()
        when(page, f"Math.abs(page.state.computed.activations.at(-1)[3] - {outputs[3]}) < 1e-4")
        assert page.locator("#training output").text_content() == slider.get_attribute("aria-valuetext") == str(step)
        reads_share(page.locator("#outputs .share").nth(3).text_content(), outputs[3])


@pytest.mark.parametrize("kind", ["text", "digits"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_exported_page_opens_from_disk_and_works(open_page, tmp_path, kind, scheme):
    file = tmp_path / "page.html"
    file.write_text(standalone(text_answers() if kind == "text" else digit_answers()), encoding="utf-8")
    page = open_page(file.as_uri(), scheme)
    if kind == "text":
        ready(page)
        assert page.locator(".chips button").count() == len(PROMPT)
        page.locator("#next input[type=range]").first.fill("0")
        assert page.locator("#next .share").first.text_content() == "100 %"
        page.get_by_role("button", name="layer 1, head 0").click()
        page.locator(".chips button").nth(2).click()
        when(page, "document.querySelector('#neighbours .note').textContent === 'nearest to a:'")
        assert page.get_by_role("button", name="Sample a token").is_disabled()
    else:
        when(page, "page.state.computed !== null")
        page.locator("#training input").fill("0")
        when(page, "document.querySelector('#training output').textContent === '10'")
        image, outputs = page.evaluate("[page.state.image, page.state.computed.activations.at(-1)].map((a) => [...a])")
        expected = digit_answers().at(10)(torch.tensor(image)).sigmoid()
        torch.testing.assert_close(torch.tensor(outputs), expected, rtol=1e-4, atol=1e-5)
        page.get_by_role("button", name="Noise").click()
    assert page.locator("#trouble").is_hidden()


@pytest.mark.parametrize("kind", ["text", "digits"])
def test_the_page_fits_light_and_dark_down_to_a_tablet(open_page, text_address, digit_address, kind, tmp_path):
    address = text_address if kind == "text" else digit_address
    papers = {}
    for scheme, width in (("light", 1280), ("dark", 768)):
        page = open_page(address, scheme, width)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        papers[scheme] = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        nameless = page.evaluate(
            """[...document.querySelectorAll('button, input, textarea, canvas[tabindex], [role=button]')]
                .filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length))
                .map((e) => e.outerHTML)"""
        )
        assert not nameless
        page.screenshot(path=tmp_path / f"{kind}-{scheme}-{width}.png", full_page=True)
    assert min(papers["light"]) > 200 and max(papers["dark"]) < 60


@pytest.mark.campaign
@pytest.mark.data
@pytest.mark.timeout(300)
def test_a_network_of_gpt_2s_size_answers_a_prompt_that_is_typed(open_page):
    torch.manual_seed(0)
    model = GPT(GPTConfig()).eval()
    large = TextAnswers(model, gpt2_vocabulary(), "large", PROMPT, tallies(model.config))
    for address in served(large):
        page = open_page(address)
        assert "124,439,808 parameters" in page.locator("#facts").text_content()
        page.fill("#prompt", "the old dog and the small fox " * 5)
        for _ in range(20):
            page.wait_for_timeout(500)
            if page.evaluate("page.state.tokens.length > 30 && page.state.bits && page.attention.layers.size === 12"):
                break
        tokens = page.evaluate("page.state.tokens")
        assert decode(large.tokenizer, tokens) == "the old dog and the small fox " * 5
        expected = model.next_logits(torch.tensor([tokens]))[0].softmax(dim=-1).topk(12)
        shown = page.evaluate("page.bars.chances().slice(0, 12)")
        torch.testing.assert_close(torch.tensor([chance for _, chance in shown]), expected.values.detach())
        assert [token for token, _ in shown] == expected.indices.tolist()
