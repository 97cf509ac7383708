"""The parent of the processes of processes.py: their environment and their slow imports."""

import os

os.environ |= {
    "DS_ACCELERATOR": "cpu",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for a device must not start CUDA before the fork
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
}

import datasets  # noqa: F401
import deepspeed  # noqa: F401
import torch  # noqa: F401
import transformers
import transformers.modeling_utils  # noqa: F401

import tests.support.distributed.networks
import tests.support.distributed.stages  # noqa: F401
