"""Progress on a terminal or in plain lines."""

from rlhf_cli.telemetry import progress


def test_the_row_counter_prints_the_number_of_rows_and_the_speed(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.RowCounter("reading data.prompts") as counting:
        for num in (1_000, 40_000, 80_000):
            now[0] += 20.0
            counting.reached(num)
    assert capsys.readouterr().out.splitlines() == [
        "  reading data.prompts ...",
        "  reading data.prompts: 40,000 rows, 1,000 a second",
    ]
    with progress.RowCounter("reading data.prompts", silent=True) as counting:
        now[0] += 99.0
        counting.reached(7)
    assert capsys.readouterr().out == ""
