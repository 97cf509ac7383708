"""Names of the environment variables of rlhf: set by the user, or by the parent for its workers."""

TRACEBACK = "RLHF_TRACEBACK"  # 1: print the traceback of every error
ADDRESS, PORT = "RLHF_ADDRESS", "RLHF_PORT"  # where node 0 listens; the same on all nodes
JUDGE_KEY = "RLHF_JUDGE_KEY"  # the key of the server judge.url, if it wants one
PARENT = "RLHF_PARENT"  # for a worker: the process id of its parent
STORE_SOCKET = "RLHF_STORE_SOCKET"  # for rank 0: the open socket at which it serves the store
