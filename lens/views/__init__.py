"""From a request to what is seen: the run comes back to life, tensors are computed, and said in words."""

from lens.request import DEMOS, Request
from lens.seen import Seen


def look(request: Request) -> Seen:
    """What was asked for. Raises UserError if there is nothing to see."""
    if request.view in DEMOS:
        from lens.views.demos import VIEWS

        return VIEWS[request.view](request)
    raise NotImplementedError
