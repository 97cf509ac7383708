"""Signals that request a worker to stop or to save."""

import signal
from types import SimpleNamespace

import pytest

from rlhf_cli.launch import signals


def test_signals_set_a_request_and_a_late_third_interrupt_raises(monkeypatch):
    """An interrupt three seconds after the first raises KeyboardInterrupt."""
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(signals, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    hangup = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    request = signals.install_stop_handlers()
    try:
        signal.raise_signal(signal.SIGUSR1)
        assert (request.save, request.stop) == (True, False)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # the same Ctrl-C, from the parent
        assert request.stop
        now.seconds = 1.5
        signal.raise_signal(signal.SIGINT)
        now.seconds = 3.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        for number, handler in (before | {signal.SIGHUP: hangup}).items():
            signal.signal(number, handler)
