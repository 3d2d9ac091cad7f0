"""Inspect a network: print one view as text, save it as a picture with --out, or open the live page."""

if __name__ == "__main__":  # parse the arguments before importing torch, so that mistakes are reported at once
    import sys

    from configs.errors import end_quietly_at_interrupt, result_or_exit

    end_quietly_at_interrupt()

    from lens.request import understand

    REQUEST = result_or_exit(lambda: understand(sys.argv[1:]))

import sys
from functools import partial

from configs.errors import answer, one_line
from lens.request import Request
from lens.views import look


def main(request: Request) -> None:
    """Print the view, and save its picture if --out is given; or open the page."""
    if request.view == "page":
        from lens.views.page import show

        return show(request)
    seen = look(request)
    sys.stdout.reconfigure(errors="replace")  # print ? for characters the terminal cannot encode
    print(f"{seen.text}\n\n{seen.sentence}")
    if request.out:
        from lens.paint import save

        save(seen.draw, request.out)
        print(one_line(f"picture saved to {request.out}"), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(answer(partial(main, REQUEST)))
