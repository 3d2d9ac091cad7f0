"""Look inside a network: one view of it as text, and as a picture where --out says."""

if __name__ == "__main__":  # understood before torch is loaded, so that a mistake costs no time
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
    """Show what was asked for."""
    if request.view == "page":
        from lens.views.page import show

        return show(request)
    seen = look(request)
    sys.stdout.reconfigure(errors="replace")  # what its encoding lacks is no reason to stop
    print(f"{seen.text}\n\n{seen.sentence}")
    if request.out:
        from lens.paint import save

        save(seen.draw, request.out)
        print(one_line(f"the picture is in {request.out}"), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(answer(partial(main, REQUEST)))
