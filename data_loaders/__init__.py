"""Rows to batches: streams sharded Parquet logs from any URI into `InteractionBatch`."""
