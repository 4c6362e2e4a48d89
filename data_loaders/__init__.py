"""Rows to batches: streams sharded Parquet interaction logs from any URI into `InteractionBatch`."""
