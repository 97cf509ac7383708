"""A server with OpenAI's interface on this machine, which answers as a function of the question."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[
    [dict[str, Any], dict[str, str]], tuple[int, Any]
]  # body, headers -> status, JSON


def by_text(text: str) -> dict[str, Any]:
    """Return the completion of a server that gives no log-probs."""
    return {"choices": [{"message": {"content": text}}]}


def by_logprobs(logprobs: dict[str, float], text: str = "?") -> dict[str, Any]:
    """Return a completion whose first token has these log-probs."""
    top = [{"token": token, "logprob": value} for token, value in logprobs.items()]
    choice = {"message": {"content": text}, "logprobs": {"content": [{"top_logprobs": top}]}}
    return {"choices": [choice]}


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """Yield the address, up to /v1, of a server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = self.path == "/v1/chat/completions"
            status, content = answer(body, dict(self.headers)) if found else (404, {})
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
