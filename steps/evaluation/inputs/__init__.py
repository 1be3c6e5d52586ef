"""What an evaluation reads: questions, text, prompts, effort."""
