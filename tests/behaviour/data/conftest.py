"""Small configurations, files and tokenizers."""

from tests.support.data_fixtures import (  # noqa: F401
    config,
    gpt2,
    make_tokenizer,
    plain_renderer,
    stories,
    write,
)
