"""Bodies that fail, for the test of run_processes."""

import os
import time


def divide():
    if os.environ["RANK"] == "1":
        raise ZeroDivisionError(f"of rank {os.environ['RANK']}")
    time.sleep(60)


def sleep():
    print("I sleep", flush=True)
    time.sleep(60)
