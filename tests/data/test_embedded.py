"""Which sources are generated, and by which package."""

from rlhf_cli.config.schema import Source
from rlhf_cli.data.embedded import generator_of, scheme_of


def test_only_a_known_scheme_is_generated():
    assert scheme_of("tiny_world:prompts") == "tiny_world"
    for path in ("tiny_world", "tiny_world/prompts.jsonl", "other:prompts", "org/name", "C:x.csv"):
        assert scheme_of(path) is None
        assert generator_of(Source(path=path)) is None


def test_a_generator_is_the_package_of_its_scheme():
    found = generator_of(Source(path="tiny_world:prompts"))
    assert found is not None and found.__name__ == "rlhf_cli.tiny_world"
    assert "held_out_prompts" in found.keys_of("prompts")
