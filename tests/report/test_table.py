"""The closing table: every number with its interval, only what somebody knows."""

from rlhf_cli.report.table import closing_table, print_table, write_table

ROWS = {
    "base": {"gold": (0.1234, 0.1, 0.15), "kl": None, "win_rate": None},
    "PPO": {"gold": (0.9, 0.8, 0.95), "kl": (1.386, 1.386, 1.386), "win_rate": None},
}


def test_table_is_kept_and_printed(tmp_path, capsys):
    write_table(tmp_path, ROWS, title="on 192 prompts", notes=["a note"])
    print_table(tmp_path)
    shown = capsys.readouterr().out
    assert "on 192 prompts" in shown
    assert "a note" in shown
    assert "[0.10, 0.15]" in shown
    assert "gold utility" in shown
    assert "preferred to SFT" not in shown  # nobody knows it
    assert "1.39" in shown  # a number without an interval stands alone


def test_numbers_that_are_not_finite_are_shown_as_they_are(tmp_path, capsys):
    nan, inf = float("nan"), float("inf")
    rows = {"PPO": {"score": (nan, nan, nan), "kl": (inf, -inf, inf), "gold": (0.5, -inf, inf)}}
    write_table(tmp_path, rows, title="t")
    print_table(tmp_path)
    shown = capsys.readouterr().out
    for cell in ("nan", "[nan, nan]", "inf", "[-inf, inf]", "0.5"):
        assert cell in shown
    assert "0.0" not in shown


def test_no_table_prints_nothing(tmp_path, capsys):
    print_table(tmp_path)
    assert capsys.readouterr().out == ""


def test_columns_are_the_policies():
    table = closing_table(ROWS, title="t")
    assert [str(c.header) for c in table.columns] == ["", "base", "PPO"]
    assert table.row_count == 2
