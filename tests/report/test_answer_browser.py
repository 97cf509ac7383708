"""The answers of the page: by prompt, one column per policy, of several runs per run."""

from rlhf_cli.report.answer_browser import answers_block
from rlhf_cli.report.run_groups import colours_of, grouped
from tests.support.run_files import answer, run_of


def block(*runs) -> dict | None:
    groups = grouped(runs)
    return answers_block(groups, colours_of(groups))


def test_answers_to_a_prompt_stand_side_by_side():
    more = {"finished": False, "score": 0.5, "gold": 1.25, "tokens": 7, "judges": {"check": 1.0}}
    found = block(
        run_of(
            rows={"base": {}, "SFT": {}, "PPO": {}},
            answers=[
                answer("SFT", "a"),
                answer("SFT", "b"),
                answer("PPO", "b"),
                answer("PPO", "a", **more),
            ],
        )
    )
    assert found["columns"] == [
        {"name": "SFT", "colour": "c1", "baseline": 0},
        {"name": "PPO", "colour": "c2", "baseline": 0},
    ]
    assert [one["prompt"] for one in found["prompts"]] == ["a", "b"]
    assert found["prompts"][0]["answers"] == [
        {"r": "SFT to a"},
        {
            "r": "PPO to a",
            "e": False,
            "s": 0.5,
            "t": 7,
            "m": {"gold utility": 1.25},
            "j": {"check": 1.0},
        },
    ]


def test_a_prompt_asked_twice_and_one_of_another_set_are_apart():
    asked = [("x", None), ("x", None), ("x", "vicuna")]
    rows = [
        answer(model, text, prompts=name, reference="right", score=float(i))
        for model in ("SFT", "PPO")
        for i, (text, name) in enumerate(asked)
    ]
    found = block(run_of(answers=rows))["prompts"]
    assert [one.get("set") for one in found] == [None, None, "vicuna"]
    assert [[each["s"] for each in one["answers"]] for one in found] == [[0, 0], [1, 1], [2, 2]]
    assert found[0]["reference"] == "right"


def test_several_runs_share_equal_prompts_and_compare_with_their_own_sft():
    one = run_of("a", answers=[answer("SFT", "x"), answer("PPO", "x")])
    other = run_of("b", seed=2, answers=[answer("PPO", "x"), answer("PPO", "y")])
    found = block(one, other)
    assert [(c["name"], c["baseline"]) for c in found["columns"]] == [
        ("SFT · a", 0), ("PPO · a", 0), ("PPO · b", None),
    ]  # fmt: skip
    assert [[each and each["r"] for each in p["answers"]] for p in found["prompts"]] == [
        ["SFT to x", "PPO to x", "PPO to x"],
        [None, None, "PPO to y"],
    ]


def test_without_answers_there_is_no_block():
    assert block(run_of()) is None
