"""The evaluation table: numbers with intervals, without rows that have no values."""

from rlhf_cli.report.table import closing_table, print_table, write_table

ROWS = {
    "base": {"gold": (0.1234, 0.1, 0.15), "kl": None, "win_rate": None},
    "PPO": {"gold": (0.9, 0.8, 0.95), "kl": (1.386, 1.386, 1.386), "win_rate": None},
}


def test_the_table_is_written_and_printed(tmp_path, capsys):
    write_table(tmp_path, ROWS, title="on 192 prompts", notes=["a note"])
    print_table(tmp_path)
    shown = capsys.readouterr().out
    assert "on 192 prompts" in shown
    assert "a note" in shown
    assert "[0.10, 0.15]" in shown
    assert "gold utility" in shown
    assert "preferred to SFT" not in shown  # no policy has a value
    assert "1.39" in shown  # an interval of width 0 is not shown


def test_numbers_that_are_not_finite_are_shown_as_nan_and_inf(tmp_path, capsys):
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


def test_the_table_has_one_column_per_policy():
    table = closing_table(ROWS, title="t")
    assert [str(c.header) for c in table.columns] == ["", "base", "PPO"]
    assert table.row_count == 2
