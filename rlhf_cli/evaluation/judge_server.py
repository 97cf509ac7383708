"""Questions with two possible answers, A and B, to a server with OpenAI's interface (vLLM, llama.cpp, ..).

The share of A is taken from the log-probs of the first token where the server gives them, else from the
text of its answer.
"""

import json
import math
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from rlhf_cli.evaluation.pairwise import LETTERS

TRIES, FIRST_PAUSE = 3, 1.0  # seconds before the second try, four times as long before the third
TIMEOUT = 60.0  # seconds for one answer
MAX_TOKENS, TOP = 8, 20  # of an answer; log-probs of its first token
BUSY = 429


class JudgeUnreachable(Exception):
    """The server did not answer, or not as such servers do; the message is the reason."""


@dataclass(slots=True, frozen=True, kw_only=True)
class JudgeServer:
    """url: up to /v1. model: its name there. parallel: requests at once. key: sent as a bearer token."""

    url: str
    model: str
    parallel: int
    key: str | None = field(default=None, repr=False)

    def shares(self, questions: Sequence[str]) -> Iterator[float]:
        """Yield the share of A of each question, in order, NaN where the answer is neither A nor B.

        JudgeUnreachable at the first question that stays without an answer; none is asked after it.
        """
        with ThreadPoolExecutor(self.parallel) as pool:
            try:
                for answer in pool.map(self._ask, questions):
                    yield share_of_a(answer)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, text: str) -> Mapping[str, Any]:
        pause = FIRST_PAUSE
        for left in reversed(range(TRIES)):
            try:
                return self._request(text)
            except urllib.error.HTTPError as error:
                if left == 0 or (error.code != BUSY and error.code < 500):
                    raise JudgeUnreachable(f"HTTP {error.code} {error.reason}") from error
            except (OSError, HTTPException) as error:
                if left == 0:
                    reason = getattr(error, "reason", None) or error
                    raise JudgeUnreachable(str(reason) or type(error).__name__) from error
            except (ValueError, LookupError, TypeError) as error:
                raise JudgeUnreachable("its answer is no chat completion") from error
            time.sleep(pause)
            pause *= 4
        raise AssertionError("unreachable")

    def _request(self, text: str) -> Mapping[str, Any]:
        """Return the first choice of a chat completion."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP,
        }
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            choice = json.load(response)["choices"][0]
        share_of_a(choice)  # raises here what another form would raise later
        return choice


def share_of_a(choice: Mapping[str, Any]) -> float:
    """Return P(A) / (P(A) + P(B)) of the first token, or 1 or 0 by the text; NaN where it is neither."""
    first = ((choice.get("logprobs") or {}).get("content") or [{}])[0]
    shares = [
        sum(
            math.exp(one["logprob"])
            for one in first.get("top_logprobs") or ()
            if one["token"].strip() == letter
        )
        for letter in LETTERS
    ]
    if sum(shares) > 0:
        return shares[0] / sum(shares)
    named = re.search(r"\b([AB])\b", choice["message"]["content"] or "")
    return math.nan if named is None else float(named.group(1) == LETTERS[0])
