"""Section `judge`: a language model that decides which of two answers is better."""

from dataclasses import dataclass

from rlhf_cli.config.schema.constraints import positive, require

PLACES = ("prompt", "a", "b")  # of the question, each in braces


@dataclass(slots=True, kw_only=True)
class Judge:
    model: str | None
    url: str | None
    chat: bool
    question: str
    parallel: int

    def __post_init__(self):
        asked = all(f"{{{place}}}" in self.question for place in PLACES)
        require(self, "question", asked, "must have the places {prompt}, {a} and {b}")
        web = self.url is None or self.url.startswith(("http://", "https://"))
        require(
            self, "url", web, "must begin with http:// or https://, as http://localhost:8000/v1"
        )
        named = self.url is None or self.model is not None
        require(self, "url", named, "needs .model: the name that the server gives the model")
        chats = self.url is None or self.chat
        require(self, "chat", chats, "needs .url=null: a server is asked through its chat template")
        positive(self, "parallel")
