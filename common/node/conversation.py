"""One client's HTTP, as the key manager speaks it: what is no request is answered as the standard says, in one line."""

from __future__ import annotations

import logging

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

log = logging.getLogger("qkd.keys")
NO_LOG = logging.getLogger("qkd.keys.access")
"""Who asks for keys, and when, is in no log."""
NO_LOG.disabled = True


class Conversation(RequestHandler):
    """The library's own answer is a text, with a traceback in the log for whatever a client sends."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that cannot be read, or whose answer failed; the connection ends with it."""
        kind = type(exc).__name__ if exc is not None else "no answer"
        if status < 500:
            log.info("key delivery: %s sent no HTTP request (%s)", request.remote, kind)
        else:
            log.error("key delivery: a request could not be answered (%s)", kind)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        text = "this is no HTTP request" if status < 500 else "the key manager failed; the fault is in its log"
        answer = web.json_response({"message": text}, status=status)
        answer.force_close()
        return answer
