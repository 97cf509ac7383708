"""python -m tests.trials [--only D] [--match WORD] [--quick | --slow] [--show] [--write docs/trials.md]"""

import argparse
import sys
from pathlib import Path

from tests.trials.place import shared_place
from tests.trials.row import Outcome
from tests.trials.running import outcomes
from tests.trials.sections import SECTIONS
from tests.trials.table import page


def main() -> int:
    """Run the selected rows, list those that fail, write the page; return 1 when any fails."""
    asked = _asked()
    tried: dict[str, list[Outcome]] = {}
    with shared_place() as shared:
        if asked.finished:
            shared.runs[""] = asked.finished.resolve()
        for title, rows in SECTIONS.items():
            if asked.only and title[0] not in asked.only.upper():
                continue
            chosen = [row for row in rows if asked.match in row.tried]
            chosen = [row for row in chosen if row.quick or not asked.quick]
            chosen = [row for row in chosen if not (row.quick and asked.slow)]
            tried[title] = [_told(o, asked.show) for o in outcomes(chosen, shared)]
    if asked.write:
        asked.write.write_text(page(tried))
    return _closed([o for found in tried.values() for o in found])


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.trials", description=__doc__)
    parser.add_argument("--only", default="", help="letters of the parts, such as DE")
    parser.add_argument("--match", default="", help="only rows with this in their first column")
    parser.add_argument("--quick", action="store_true", help="no row that starts a command")
    parser.add_argument("--slow", action="store_true", help="the other rows alone")
    parser.add_argument("--finished", type=Path, help="a folder whose runs/small such a run made")
    parser.add_argument("--show", action="store_true", help="all that every row printed")
    parser.add_argument(
        "--write", type=Path, help="the page of the results, such as docs/trials.md"
    )
    asked = parser.parse_args()
    if asked.write and (asked.only or asked.match or asked.quick or asked.slow):
        print("the page will hold these rows alone", file=sys.stderr)
    return asked


def _told(found: Outcome, show: bool) -> Outcome:
    mark = {"good": ".", "defended": "d", "not tried": "-"}.get(found.verdict.partition(":")[0])
    if mark and not show:
        print(mark, end="", flush=True)
        return found
    print(f"\n[{found.seconds:.1f} s] {found.row.tried}\n    came: {found.comes}")
    print(f"    {found.verdict}", flush=True)
    if found.came:
        lines = found.came.text.strip().splitlines()
        print("\n".join(f"    | {line}" for line in (lines if show else lines[-5:])))
    return found


def _closed(found: list[Outcome]) -> int:
    failed = [outcome for outcome in found if outcome.faults]
    print(f"\n{len(found)} rows, {len(failed)} fail")
    for outcome in failed:
        print(f"  {outcome.row.tried[:90]}: {outcome.verdict[:160]}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
