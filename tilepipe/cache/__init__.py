"""The cache on disk: arrays, ledgers, locks and folders."""
