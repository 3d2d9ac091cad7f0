"""Export the page as one HTML file that works offline, with the network's answers for one prompt."""

import base64
import hashlib
import json
import re
from pathlib import Path

from lens.answers.pack import Answer, Answers

PAGE = Path(__file__).parent / "page"
IMPORT = re.compile(r'^import [^;]* from "\./(\w+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=const|function|async|class|let)", re.MULTILINE)


def standalone(answers: Answers) -> str:
    """The page's HTML with style sheet, scripts and data inlined."""
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    style, script = (PAGE / "style.css").read_text(encoding="utf-8"), bundle("main.js")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest(script)}'; style-src 'sha256-{digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    pieces = {
        '<meta name="policy">': f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<link rel="stylesheet" href="style.css">': f"<style>{style}</style>",
        '<script type="module" src="main.js"></script>': f'<script type="application/json" id="told">'
        f'{harmless(answers.told())}</script>\n<script type="module">{script}</script>',
    }
    for old, new in pieces.items():
        before, found, after = html.partition(old)
        assert found, old
        html = before + new + after
    return html


def harmless(answer: Answer) -> str:
    """JSON that is safe inside HTML: every < is escaped, so a token cannot open or close a tag."""
    return json.dumps(answer, separators=(",", ":")).replace("<", "\\u003c")


def digest(text: str) -> str:
    """SHA-256 in base64, as Content-Security-Policy expects it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def bundle(name: str) -> str:
    """A module of the page and its imports in one script: each module once, after those that it imports."""
    order: dict[str, str] = {}

    def add(name: str) -> None:
        if name not in order:
            text = (PAGE / name).read_text(encoding="utf-8")
            order[name] = ""  # marks it as visited, in case of an import cycle
            for other in IMPORT.findall(text):
                add(other)
            del order[name]
            order[name] = EXPORT.sub("", IMPORT.sub("", text))

    add(name)
    return "\n".join(order.values())
