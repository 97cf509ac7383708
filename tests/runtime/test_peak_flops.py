"""The best that this machine does, measured once."""

import time

import torch

from rlhf_cli.runtime.peak_flops import measured_peak_flops

CPU = torch.device("cpu")


def test_the_rate_is_one_that_a_product_reaches():
    rate, x = measured_peak_flops(CPU, torch.float32), torch.ones(256, 256)
    seconds = []
    for _ in range(20):
        before = time.perf_counter()
        x @ x
        seconds.append(time.perf_counter() - before)
    assert rate > 0.2 * 2 * 256**3 / min(seconds)
    assert rate < 1e14  # no CPU does that


def test_it_is_measured_once_and_draws_no_number_of_the_run():
    measured_peak_flops.cache_clear()
    before = torch.get_rng_state()
    first = measured_peak_flops(CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), before)
    assert measured_peak_flops(CPU, torch.float32) == first
    assert measured_peak_flops.cache_info().misses == 1
