"""From a person's own raw logs to rows that fit a recipe: what `data_loaders.prepare` runs."""
