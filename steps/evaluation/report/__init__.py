"""Show an evaluation: page, plots, tables, words."""
