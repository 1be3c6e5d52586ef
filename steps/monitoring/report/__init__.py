"""What a person sees of a monitoring: one page and its charts."""
