"""Writing to the disk without waiting for it."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """A killed process loses nothing that it has written, synced or not: waiting shows nothing here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
