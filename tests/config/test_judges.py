"""Which models judge, by their keys."""

from rlhf_cli.config.judges import language_judge, reward_judges
from tests.support.configuration import composed


def test_every_judge_has_its_key():
    assert reward_judges(composed()) == language_judge(composed()) == {}
    cfg = composed("parents.check=a", "evaluation.judges=[b,c]", "judge.model=d")
    assert reward_judges(cfg) == {
        "parents.check": "a",
        "evaluation.judges[0]": "b",
        "evaluation.judges[1]": "c",
    }
    assert language_judge(cfg) == {"judge.model": "d"}
    assert language_judge(composed("judge.model=d", "judge.url='http://x/v1'")) == {}
