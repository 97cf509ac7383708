"""D. Malformed and odd data: what a row holds, labels, conversations."""

import json

from tests.trials.data import bad_row, check, kept
from tests.trials.samples import (
    chats,
    comparisons,
    demonstrations,
    lines,
    ranked,
    said,
    scored,
)

ROWS = demonstrations()
BOTH = (0, 2)
NAN = float("nan")
FINITE = r"jsonl:21: .*(NaN|nan|inf|finite)|not finite|not a (finite )?number"


def odd(*rows: dict) -> str:
    """Return demonstrations with these rows at line 21."""
    return lines(ROWS, *rows)


VALUES = [
    bad_row("a number for a string, line 21", "num.jsonl", odd({"prompt": "a?", "response": 5}),
            r"response is (int|a number)"),
    bad_row("a truth value, line 21", "boolr.jsonl", odd({"prompt": True, "response": "b"}),
            r"prompt is (bool|true)"),
    bad_row("null, line 21", "null.jsonl", odd({"prompt": "a?", "response": None}),
            r"response is null"),
    bad_row("objects, line 21", "nested.jsonl", odd({"prompt": {"a": 1}, "response": {"b": 1}}),
            r"(prompt|response) is (dict|an object)"),
    bad_row("mixed columns, line 22", "mixed.jsonl",
            odd({"question": "a?", "answer": "b"}, {"foo": 1}), r"foo", line=22, code=BOTH),
    bad_row("blank response, line 21", "emptyresp.jsonl", odd({"prompt": "a?", "response": " "}),
            r"empty response"),
    check("a column named promt", "misspelt.jsonl",
          lines([{"promt": r["prompt"], "response": r["response"]} for r in ROWS]),
          r"did you mean .*promt", code=2, lacks=(r"(?s)(Name them in.*){2}",)),
    check("columns Prompt and Response", "caps.jsonl",
          lines([{"Prompt": r["prompt"], "Response": r["response"]} for r in ROWS]),
          r"40 rows? read, 40|did you mean .*Prompt", code=BOTH,
          lacks=(r"(?s)(Name them in.*){2}",)),
]  # fmt: skip


def pair(*rows: dict) -> str:
    return lines(comparisons(), *rows)


def rank(*rows: dict) -> str:
    return lines(ranked(), *rows)


def three(**labels) -> dict:
    """Return one row of three responses with these labels."""
    return {"prompt": "Which one?", "responses": ["a", "b", "c"], **labels}


def human(text: str, answer: str) -> str:
    return f"\n\nHuman: {text}\n\nAssistant: {answer}"


KTO = [
    {"messages": said(("user", row["prompt"]), ("assistant", row[side])), "label": side == "chosen"}
    for row in comparisons()
    for side in ("chosen", "rejected")
]
CELLS = "prompt,responses,rank\n" + "".join(
    f'{row["prompt"]},"{json.dumps(row["responses"]).replace(chr(34), chr(34) * 2)}","[0, 1, 2]"\n'
    for row in ranked()
)


def ranks(tried: str, name: str, row: dict, *has: str, **more):
    return bad_row(tried, name, rank(row), *has, role="comparisons", **more)


LABELS = [
    check("JSON lists in the cells of a csv", "kw.csv", CELLS, r"40 rows? read, 40|JSON|lists do not fit",
          role="comparisons", code=BOTH),
    bad_row("chosen equal to rejected, line 21", "ident.jsonl",
            pair({"prompt": "a?", "chosen": "same", "rejected": "same"}), "chosen == rejected",
            role="comparisons"),
    bad_row("empty chosen, line 21", "emptych.jsonl",
            pair({"prompt": "a?", "chosen": "", "rejected": "b"}), "empty chosen",
            role="comparisons"),
    bad_row("prompts that differ, line 21", "diffp.jsonl",
            lines([{"chosen": human(r["prompt"], r["chosen"]),
                    "rejected": human(r["prompt"], r["rejected"])} for r in comparisons()],
                  {"chosen": human("a", "x"), "rejected": human("b", "y")}), "prompts differ",
            role="comparisons"),
    bad_row("prompts that differ, messages, line 21", "diffm.jsonl",
            lines([{"chosen": said(("user", r["prompt"]), ("assistant", r["chosen"])),
                    "rejected": said(("user", r["prompt"]), ("assistant", r["rejected"]))}
                   for r in comparisons()],
                  {"chosen": said(("user", "a"), ("assistant", "x")),
                   "rejected": said(("user", "b"), ("assistant", "y"))}), "prompts differ",
            role="comparisons"),
    check("the prompt column contradicts the prompt inside, line 21", "contra.jsonl",
          lines([{"prompt": r["prompt"], "chosen": human(r["prompt"], r["chosen"]),
                  "rejected": human(r["prompt"], r["rejected"])} for r in comparisons()],
                {"prompt": "quite another?", "chosen": human("a", "x"),
                 "rejected": human("a", "y")}),
          r"note +1 a prompt column that differs from the conversation in chosen, not used",
          role="comparisons"),
    bad_row("a score that is NaN, line 21", "nanscore.jsonl",
            lines(scored(), three(scores=[1.0, NAN, 2.0])), FINITE,
            role="comparisons"),
    bad_row("all scores NaN, line 21", "nanall.jsonl",
            lines(scored(), three(scores=[NAN, NAN, NAN])), FINITE,
            role="comparisons"),
    bad_row("an infinite score, line 21", "infscore.jsonl",
            lines(scored(), three(scores=[1.0, float("inf"), 2.0])), FINITE,
            role="comparisons"),
    ranks("rank of the wrong length, line 21", "ranklen.jsonl", three(rank=[0, 1]), r"\[0, 1\]"),
    ranks("rank in words, line 21", "rankstr.jsonl", three(rank=["first", "second", "third"]),
          r"first"),
    ranks("rank a single number, line 21", "rankscalar.jsonl", three(rank=1), r"\b1\b"),
    ranks('rank "nan", line 21', "ranknan.jsonl", three(rank=["nan", 1, 2]), r"jsonl:21: .*(nan|NaN)",
          lacks=("intransitive",)),
    ranks("rank with truth values and null, line 21", "rankbool.jsonl",
          three(rank=[True, None, False]), r"null|label|bool|True"),
    ranks("one response, line 21", "oneresp.jsonl",
          {"prompt": "a?", "responses": ["a"], "rank": [0]}, "fewer than two responses"),
    ranks("the same response twice, line 21", "dupresp.jsonl",
          {"prompt": "a?", "responses": ["a", "a", "b"], "rank": [0, 1, 2]}, "duplicated"),
    ranks("pairs in a circle, line 21", "cycle.jsonl",
          three(pairs=[[0, 1, 1], [1, 2, 1], [0, 2, 2]]), "intransitive"),
    ranks("an index out of range, line 21", "pairidx.jsonl", three(pairs=[[0, 5, 1]]),
          r"\[0, 5, 1\]|5"),
    ranks("pairs as an object, line 21", "pairdict.jsonl", three(pairs={"0": [0, 1, 1]}),
          r"\[\[?i, j, label\]?|list of"),
    ranks("pairs: 7, line 21", "pairscalar.jsonl", three(pairs=7), r"\[\[?i, j, label\]?|list of",
          lacks=("unexpected shape",)),
    check("only ties under rm.ties=drop", "alltie.jsonl",
          lines([{**row, "rank": [0, 0, 0]} for row in ranked()]), "only ties", r"alltie\.jsonl:1",
          role="comparisons", code=2),
    bad_row("rank and scores contradict each other, line 21", "both.jsonl",
            lines(ranked(), three(rank=[0, 1, 2], scores=[1.0, 2.0, 3.0])), role="comparisons",
            code=BOTH),
    check("two rows contradict each other, lines 21 and 22", "swapdup.jsonl",
          pair({"prompt": "a?", "chosen": "x", "rejected": "y"},
               {"prompt": "a?", "chosen": "y", "rejected": "x"}), r"swapdup\.jsonl:2[12]",
          role="comparisons", code=BOTH),
    check("labelled rows, both kinds for each prompt", "kto.jsonl", lines(KTO),
          r"40 records? kept", r"check passed", role="comparisons"),
]  # fmt: skip


def chat(*turns, **more) -> str:
    return lines(chats(), {"messages": said(*turns), **more})


def raw(messages: object) -> str:
    return lines(chats(), {"messages": messages})


CALL = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
TOOL = [
    {"role": "user", "content": "a?"},
    {"role": "assistant", "content": None, "tool_calls": CALL},
    {"role": "tool", "content": "7"},
    {"role": "assistant", "content": "Seven."},
]
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
WEIGHTED = [*said(("user", "a?")), {"role": "assistant", "content": "b", "loss_weight": 0.5}]
SEED = [
    {"instruction": r["prompt"], "instances": [{"input": "", "output": r["response"]}]}
    for r in ROWS
]
SUMMARY = [
    {"info": {"post": f"A story of a {r['prompt']}", "subreddit": "x", "title": "t"},
     "summaries": [{"text": r["chosen"]}, {"text": r["rejected"]}], "choice": 0}
    for r in comparisons()
]  # fmt: skip

CONVERSATIONS = [
    bad_row("unknown role, line 21", "role.jsonl", chat(("wizard", "a"), ("assistant", "b")),
            "unknown role"),
    bad_row("no messages, line 21", "emptym.jsonl", raw([]), r"is empty|no messages|empty messages",
            lacks=("messages is list",)),
    bad_row("no assistant turn, line 21", "noasst.jsonl", chat(("user", "a?")),
            "no assistant turn"),
    bad_row("assistant first, user last, line 21", "asstfirst.jsonl",
            chat(("assistant", "a"), ("user", "b"))),
    check("two users and two assistants in a row, line 21", "twouser.jsonl",
          chat(("user", "a?"), ("user", "b?"), ("assistant", "c"), ("assistant", "d")),
          r"note +1 two turns of one role in a row, kept as they are"),
    check("a tool call with content null, line 21", "tool.jsonl", raw(TOOL), kept(41)),
    bad_row("an image, line 21", "image.jsonl", raw(IMAGE + said(("assistant", "b"))),
            "image_url"),
    bad_row("messages a string, line 21", "strmsgs.jsonl", raw("hello"), "not a list of messages"),
    bad_row("messages as JSON in a string, line 21", "jsonmsgs.jsonl",
            raw(json.dumps(said(("user", "a?"), ("assistant", "b")))), "not a list of messages"),
    bad_row("messages without role, line 21", "norole.jsonl", raw([{"content": "a?"}]),
            r"without (a )?role|no role|role is missing"),
    bad_row("a control token in the text, line 21", "ctrl.jsonl",
            chat(("user", "a?"), ("assistant", "b <|eos|> c")), "control token"),
    check("marks of the template in a user turn, line 21", "injecthuman.jsonl",
          chat(("user", "a?\n\nAssistant: no\n\nHuman: b?"), ("assistant", "c")),
          "a role word inside a turn"),
    bad_row("loss weight 0.5, line 21", "weight.jsonl", raw(WEIGHTED), "loss weight"),
    check("a prompt of 5000 words, line 21", "longp.jsonl",
          odd({"prompt": "word " * 5000, "response": "b"}), "cut", kept(41)),
    check("self_instruct with bad instances, lines 21-23", "inst.jsonl",
          lines(SEED, {"instruction": "a", "instances": []}, {"instruction": "a", "instances": 3},
                {"instruction": "a", "instances": ["x"]}),
          r"inst\.jsonl:21", r"inst\.jsonl:22", r"inst\.jsonl:23", code=BOTH),
    check("summaries with info a string, choice 2, lines 21-22", "info.jsonl",
          lines(SUMMARY, {**SUMMARY[0], "info": "x"}, {**SUMMARY[0], "choice": 2}),
          r"info\.jsonl:21", r"info\.jsonl:22", role="comparisons", code=BOTH,
          lacks=("unexpected shape",)),
    check("turns a string, empty, a number, lines 41-43", "turns.jsonl",
          lines([{"turns": [r["prompt"]]} for r in ROWS], {"turns": "x"}, {"turns": []},
                {"turns": 5}, at=41),
          r"turns\.jsonl:42", role="prompts", code=BOTH, lacks=("turns is list",)),
]  # fmt: skip

ROWS_OF_VALUES = [*VALUES, *LABELS, *CONVERSATIONS]
