"""The recipes that ship with Polytower."""
