"""The maths of RLHF, torch only: tensors and keyword numbers in, tensors out.

Never a config, never a model, never torch.distributed. Masks are bool and True is a real token;
B sequences, P prompt columns (left padded), R response columns (right padded), T, N completions,
M pairs, V vocabulary.
"""
