"""Algorithms of RLHF on tensors, with torch only: tensors and keyword numbers in, tensors out.

No configuration, no model and no torch.distributed. Masks are bool and True is a real token;
B sequences, P prompt columns (left padded), R response columns (right padded), T, N responses,
M pairs, V vocabulary.
"""
