"""What the processes of dist.py are forked from: their environment, and what takes long to import."""

import os

os.environ |= {
    "DS_ACCELERATOR": "cpu",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # asking for a device must not start CUDA before the fork
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
}

import datasets  # noqa: E402, F401
import deepspeed  # noqa: E402, F401
import torch  # noqa: E402, F401
import transformers  # noqa: E402, F401
import transformers.modeling_utils  # noqa: E402, F401

import tests.runtime.bodies_networks  # noqa: E402, F401
import tests.stages.bodies  # noqa: E402, F401
