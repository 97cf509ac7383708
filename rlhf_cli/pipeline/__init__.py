"""The parent process of a run: it plans, checks and starts the stages. torch is not imported here."""
