"""Ids to vectors: embedding tables from the recipe, their sharding plan, and the lookup."""
